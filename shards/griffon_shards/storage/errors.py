"""Errors of object stores: which deserve another attempt, and what to say about the others.

fsspec's file systems raise each provider's own exceptions, or an OSError with that exception as its cause. Neither the
providers' packages nor fsspec are imported here; exceptions are told apart by their codes and by the names of their
classes.

Sources: "Error responses" in the Amazon S3 API reference; "HTTP status and error codes" of Google Cloud Storage;
"Blob Storage error codes" of Azure.
"""

import errno
from collections.abc import Iterator

from griffon_shards.storage.providers import bucket_of, provider_of
from griffon_shards.support.errors import DataError

_TRANSIENT_STATUS = frozenset({408, 410, 425, 429, 500, 502, 503, 504, 509})  # 410: Google has dropped an upload
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
     "ContentLengthError", "TransportError", "ProxyError", "ChecksumError"}
)  # fmt: skip
_NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "SSOTokenLoadError", "ProfileNotFound",
     "DefaultCredentialsError", "RefreshError", "CredentialUnavailableError", "CredentialRetrievalError",
     "UnauthorizedSSOTokenError", "InvalidConfigError", "ClientAuthenticationError"}
)  # fmt: skip
_WRONG_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
     "AuthenticationFailed", "InvalidSecurity", "InvalidAuthenticationInfo"}
)  # fmt: skip
_WRONG_REGION = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "TemporaryRedirect"}
)
_TRANSIENT_ERRNO = frozenset({errno.EBUSY, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EPIPE})
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
_GOOGLE_FORBIDS = "Forbidden: "  # gcsfs turns a 403 into an OSError that has nothing but a text
_AZURE_CANNOT_START = "unable to connect to account for "  # adlfs's ValueErrors
_AZURE_HAS_NO_ACCOUNT = f"{_AZURE_CANNOT_START}Must provide"
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login",
    "az": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or az login",
}
_CHECK_BUCKET = {
    "s3": "check its name, and the endpoint (AWS_ENDPOINT_URL)",
    "gs": "check its name",
    "az": "check its name, and the account (AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCOUNT_NAME)",
}
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


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


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
        if _names(cause) & _TRANSIENT_CLASSES:  # aiohttp gives responses that were cut the code 400
            continue
        if isinstance(cause, OSError) and str(cause).startswith(_GOOGLE_FORBIDS):
            return 403
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
        if _names(cause) & _NO_CREDENTIALS:
            return False
        if isinstance(cause, (ConnectionError, TimeoutError)) or _names(cause) & _TRANSIENT_CLASSES:
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


def no_bucket(url: str) -> str:
    """One line about a bucket that is missing."""
    return f"{bucket_of(url)}: no such bucket; {_CHECK_BUCKET[provider_of(url)]}"


def describe(error: BaseException, url: str) -> str:
    """One line about an error that is final: where, what, and how to fix it."""
    code, status, bucket = code_of(error), status_of(error), bucket_of(url)
    if code in _NO_BUCKET:
        return no_bucket(url)
    if fault := _fault_of_credentials(error):
        return f"{bucket}: {fault} {_CREDENTIALS[provider_of(url)]}"
    if code == _WRONG_CLOCK:
        return f"{bucket}: refuses the time of this machine's clock; set the clock"
    if code in _WRONG_REGION or status in (301, 307):
        return f"{bucket}: the bucket is in another region; set it (S3: AWS_REGION and AWS_DEFAULT_REGION)"
    if status == 403 or isinstance(error, PermissionError):
        return f"{url}: no permission ({code or status or 'refused'}); grant your credentials access to the bucket"
    if code == "InvalidRange" or status == 416:
        return truncated(url)
    if isinstance(error, FileNotFoundError) or status == 404:
        return f"{url}: no such object"
    detail = code or (f"HTTP {status}" if status else "") or _first_line(error)
    return f"{url}: the store reports {detail}"


def _fault_of_credentials(error: BaseException) -> str:
    """The fault, and what to do about the variables that are named next; empty if the credentials are not at fault."""
    code, status, text = code_of(error), status_of(error), str(error)
    names = set().union(*map(_names, chain_of(error)))
    if code in _WRONG_CREDENTIALS:
        return f"the credentials are refused ({code}); renew them, or set"
    if text.startswith(_AZURE_HAS_NO_ACCOUNT):
        return "no credentials; set"
    if text.startswith(_AZURE_CANNOT_START) or "AzureSigningError" in names:
        return "the connection string or the key is malformed; set"
    if status == 401:
        return f"no credentials, or they are refused ({code or status}); set"
    return "no credentials; set" if names & _NO_CREDENTIALS else ""


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
