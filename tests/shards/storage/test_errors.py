"""Which errors of object stores are tried again, and what is said about the others.

The exceptions have the attributes and names of the providers': botocore, azure.core, gcsfs, aiohttp.
"""

import errno

import pytest

from griffon_shards.storage.errors import describe, describe_given_up, is_existing, is_missing, is_transient

URL = "s3://bucket/sets/mine/index.npy"


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, code: str, status: int = 0) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class AzureError(Exception):
    """As azure.core's."""

    def __init__(self, error_code: str, status_code: int) -> None:
        super().__init__(error_code)
        self.error_code, self.status_code = error_code, status_code


class HttpError(Exception):
    """As gcsfs's."""

    def __init__(self, code: int) -> None:
        super().__init__("refused")
        self.code = code


def named(name: str, text: str = "") -> Exception:
    """An exception of a class with this name."""
    kind: type[Exception] = type(name, (Exception,), {})
    return kind(text)


def translated(error: type[Exception], cause: Exception) -> Exception:
    """As s3fs raises it: an OSError with the provider's exception as its cause."""
    try:
        raise error("text of the store") from cause
    except Exception as raised:  # noqa: BLE001
        return raised


TRANSIENT = [
    ClientError("SlowDown", 503),
    ClientError("InternalError", 500),
    ClientError("Unheard", 502),
    ClientError("503", 503),
    ClientError("RequestTimeout", 400),
    ClientError("ConditionalRequestConflict", 409),
    translated(OSError, ClientError("SlowDown", 503)),
    AzureError("ServerBusy", 503),
    AzureError("OperationTimedOut", 500),
    HttpError(410),
    named("ProxyError"),
    HttpError(429),
    HttpError(503),
    named("ServerDisconnectedError"),
    named("ClientPayloadError"),
    named("EndpointConnectionError"),
    translated(OSError, named("ReadTimeoutError")),
    ConnectionResetError(),
    TimeoutError(),
    OSError(errno.EPIPE, "broken"),
]
FINAL = [
    (ClientError("NoSuchBucket", 404), "s3://bucket: no such bucket; check its name"),
    (translated(FileNotFoundError, ClientError("NoSuchBucket", 404)), "s3://bucket: no such bucket; check its name"),
    (AzureError("ContainerNotFound", 404), "s3://bucket: no such bucket"),
    (translated(PermissionError, ClientError("AccessDenied", 403)), f"{URL}: no permission (AccessDenied); grant"),
    (ClientError("403", 403), f"{URL}: no permission (403)"),
    (HttpError(401), "s3://bucket: no credentials, or they are refused (401); set AWS_ACCESS_KEY_ID"),
    (OSError("Forbidden: https://storage.googleapis.com/b/o\ndenied"), f"{URL}: no permission (403)"),
    (named("ClientAuthenticationError", "DefaultAzureCredential failed\nAttempted"), "s3://bucket: no credentials"),
    (ValueError("unable to connect to account for Must provide either"), "s3://bucket: no credentials"),
    (PermissionError(), f"{URL}: no permission (refused)"),
    (ClientError("InvalidAccessKeyId", 403), "s3://bucket: the credentials are refused (InvalidAccessKeyId); renew"),
    (ClientError("ExpiredToken", 400), "s3://bucket: the credentials are refused (ExpiredToken)"),
    (AzureError("AuthenticationFailed", 403), "s3://bucket: the credentials are refused"),
    (ClientError("RequestTimeTooSkewed", 403), "s3://bucket: refuses the time of this machine's clock; set the clock"),
    (ClientError("PermanentRedirect", 301), "s3://bucket: the bucket is in another region; set it"),
    (ClientError("AuthorizationHeaderMalformed", 400), "s3://bucket: the bucket is in another region"),
    (ClientError("301", 301), "s3://bucket: the bucket is in another region"),
    (named("NoCredentialsError", "Unable to locate"), "s3://bucket: no credentials; set AWS_ACCESS_KEY_ID and"),
    (translated(OSError, named("ProfileNotFound")), "s3://bucket: no credentials"),
    (named("DefaultCredentialsError"), "s3://bucket: no credentials"),
    (ClientError("InvalidRange", 416), f"{URL}: truncated"),
    (ClientError("EntityTooLarge", 400), f"{URL}: the store reports EntityTooLarge"),
    (HttpError(418), f"{URL}: the store reports HTTP 418"),
    (named("OddError", "first line\nsecond line"), f"{URL}: the store reports OddError: first line"),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_throttling_failures_and_broken_connections_are_tried_again(error: Exception) -> None:
    assert is_transient(error)
    assert not is_missing(error)
    assert not is_existing(error)


@pytest.mark.parametrize(("error", "says"), FINAL, ids=repr)
def test_a_final_error_is_one_line_that_says_how_to_fix_it(error: Exception, says: str) -> None:
    assert not is_transient(error)
    assert not is_missing(error)
    message = describe(error, URL)
    assert message.startswith(says)
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [
        translated(FileNotFoundError, ClientError("NoSuchKey", 404)),
        FileNotFoundError(),
        ClientError("404", 404),
        AzureError("BlobNotFound", 404),
        HttpError(404),
    ],
    ids=repr,
)
def test_a_missing_object_is_not_a_fault_of_the_store(error: Exception) -> None:
    assert is_missing(error)
    assert not is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        FileExistsError(),
        translated(OSError, ClientError("PreconditionFailed", 412)),
        AzureError("BlobAlreadyExists", 409),
        HttpError(412),
    ],
    ids=repr,
)
def test_an_object_that_exists_is_recognized_for_every_provider(error: Exception) -> None:
    assert is_existing(error)
    assert not is_transient(error)


def test_giving_up_says_what_stayed_and_for_how_long() -> None:
    message = describe_given_up(ClientError("SlowDown", 503), URL, 9, 45.6)
    assert message.startswith(f"{URL}: still fails after 9 attempts in 46 s (SlowDown HTTP 503); check the network")
    assert "rerun the same command" in message
    assert "(ConnectionResetError)" in describe_given_up(ConnectionResetError(), URL, 9, 45.6)
