"""Errors of object stores: which deserve another attempt, and what to say about the others.

fsspec's file systems raise each provider's own exceptions, or an OSError with that exception as its cause. Neither the
providers' packages nor fsspec are imported here; exceptions are told apart by their codes and by the names of their
classes.

Sources: "Error responses" in the Amazon S3 API reference; "HTTP status and error codes" of Google Cloud Storage;
"Blob Storage error codes" of Azure.
"""

import errno
from collections.abc import Iterator

from griffon_shards.support.errors import DataError

_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 509})
_TRANSIENT_CODES = frozenset(
    {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "ThrottlingException",
     "Throttling", "RequestLimitExceeded", "BandwidthLimitExceeded", "OperationAborted", "ConditionalRequestConflict",
     "ServerBusy", "OperationTimedOut", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"}
)  # fmt: skip
_TRANSIENT_CLASSES = frozenset(
    {"ClientPayloadError", "ServerDisconnectedError", "ClientConnectionError", "ClientConnectorError", "ClientOSError",
     "ConnectTimeoutError", "ReadTimeoutError", "EndpointConnectionError", "ConnectionClosedError",
     "HTTPClientError", "ResponseStreamingError", "IncompleteReadError", "IncompleteRead", "ResponseParserError",
     "FSTimeoutError", "ServiceRequestError", "ServiceResponseError", "TransferEncodingError",
     "ContentLengthError"}
)  # fmt: skip
_NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "SSOTokenLoadError", "ProfileNotFound",
     "DefaultCredentialsError", "RefreshError", "CredentialUnavailableError", "CredentialRetrievalError",
     "UnauthorizedSSOTokenError", "InvalidConfigError"}
)  # fmt: skip
_WRONG_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
     "AuthenticationFailed", "InvalidSecurity"}
)  # fmt: skip
_WRONG_REGION = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "TemporaryRedirect"}
)
_TRANSIENT_ERRNO = frozenset({errno.EBUSY, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EPIPE})
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
_EXISTS = frozenset({"PreconditionFailed", "BlobAlreadyExists"})
_WRONG_CLOCK = "RequestTimeTooSkewed"


class StorageError(DataError):
    """An object store refuses, or still fails after retries. The message is one line without credentials."""


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def code_of(error: BaseException) -> str:
    """The provider's error code, such as `NoSuchKey`, or an empty string."""
    for cause in chain_of(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):  # botocore
            return str(response.get("Error", {}).get("Code", ""))
        if code := getattr(cause, "error_code", None):  # azure
            return str(getattr(code, "value", code))
    return ""


def status_of(error: BaseException) -> int:
    """The HTTP status, or 0."""
    for cause in chain_of(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):  # botocore
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if type(cause).__name__ in _TRANSIENT_CLASSES:  # aiohttp gives responses that were cut the code 400
            continue
        for name in ("status_code", "status", "code"):  # azure, aiohttp, gcsfs
            value = getattr(cause, name, None)
            if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
                return int(value)
    return 0


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may succeed: throttling, failures of the server, broken connections."""
    code, status = code_of(error), status_of(error)
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUS:
        return True
    if code or status:  # the store has answered
        return False
    for cause in chain_of(error):
        if type(cause).__name__ in _NO_CREDENTIALS:
            return False
        if isinstance(cause, (ConnectionError, TimeoutError)) or type(cause).__name__ in _TRANSIENT_CLASSES:
            return True
        if isinstance(cause, OSError) and cause.errno in _TRANSIENT_ERRNO:
            return True
    return False


def is_missing(error: BaseException) -> bool:
    """Whether there is no such object, while its bucket exists as far as the store says."""
    return code_of(error) not in _NO_BUCKET and (isinstance(error, FileNotFoundError) or status_of(error) == 404)


def is_existing(error: BaseException) -> bool:
    """Whether an operation that only creates met an object that exists."""
    return isinstance(error, FileExistsError) or code_of(error) in _EXISTS or status_of(error) == 412


def truncated(url: str) -> str:
    """One line about an object that ends before the bytes that are read."""
    return f"{url}: truncated, ends before the bytes that are needed; copy it again"


def describe(error: BaseException, url: str) -> str:
    """One line about an error that is final: where, what, and how to fix it."""
    code, bucket = code_of(error), "/".join(url.split("/")[:3])
    names = {type(cause).__name__ for cause in chain_of(error)}
    status = status_of(error)
    if names & _NO_CREDENTIALS:
        return (
            f"{bucket}: no credentials; set the environment variables of your provider (S3: AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE) or log in with its command line"
        )
    if code in _NO_BUCKET:
        return f"{bucket}: no such bucket; check its name, and the endpoint (S3: AWS_ENDPOINT_URL)"
    if code in _WRONG_CREDENTIALS:
        return f"{bucket}: the credentials are refused ({code}); renew them, or choose others (S3: AWS_PROFILE)"
    if code == _WRONG_CLOCK:
        return f"{bucket}: refuses the time of this machine's clock; set the clock"
    if code in _WRONG_REGION or status in (301, 307):
        return f"{bucket}: the bucket is in another region; set it (S3: AWS_REGION and AWS_DEFAULT_REGION)"
    if status in (401, 403) or isinstance(error, PermissionError):
        return f"{url}: no permission ({code or status or 'refused'}); grant your credentials access to the bucket"
    if code == "InvalidRange" or status == 416:
        return truncated(url)
    if isinstance(error, FileNotFoundError) or status == 404:
        return f"{url}: no such object"
    detail = code or (f"HTTP {status}" if status else "") or _first_line(error)
    return f"{url}: the store reports {detail}"


def describe_given_up(error: BaseException, url: str, attempts: int, seconds: float) -> str:
    """One line about an error that stayed after so many attempts."""
    status, code = status_of(error), code_of(error)
    detail = " ".join(filter(None, (code, f"HTTP {status}" if status else ""))) or _first_line(error)
    return (
        f"{url}: still fails after {attempts} attempts in {seconds:.0f} s ({detail}); check the network and the "
        "endpoint, or run fewer workers if the store throttles, then rerun the same command"
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
