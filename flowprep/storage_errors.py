"""Errors of files and object stores: which are temporary, and how to explain each to the user."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from flowprep.errors import StorageError, StorageReason
from flowprep.urls import redacted

__all__ = ["answer_of", "explain", "may_pass", "translated_errors"]


# ESTALE: a file on NFS was replaced. EIO: a soft mount or Lustre lost its server, or s3fs got an
# answer that it does not know. EBUSY and EREMOTEIO: s3fs got the status 503 or 500.
_PASSING_ERRNOS = frozenset(
    {
        *(errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.EREMOTEIO, errno.ESTALE),
        *(errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH),
        *(errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.EPIPE, errno.ETIMEDOUT),
    }
)


_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


# These codes of https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html come with
# another status than those above. NoSuchUpload: the answer to the end of an upload got lost, and
# the request was sent twice. BadDigest and similar: the body was cut or changed on the way.
_PASSING_CODES = frozenset(
    {
        *("BadDigest", "ConditionalRequestConflict", "IncompleteBody", "NoSuchUpload"),
        *("OperationAborted", "RequestTimeout", "RequestTimeoutException", "SlowDown"),
        *("Throttling", "ThrottlingException", "TooManyRequests", "XAmzContentSHA256Mismatch"),
    }
)


# Classes of the stores' libraries, by name, because none of the libraries has to be installed.
_PASSING_CLASSES = frozenset(
    {
        *("HTTPClientError", "IncompleteReadError", "ResponseParserError", "FSTimeoutError"),
        *("CredentialRetrievalError", "ClientConnectionError", "ClientPayloadError"),
        *("ServerDisconnectedError", "ChunkedEncodingError", "ProtocolError", "ChecksumError"),
        *("TransportError", "Timeout", "ConnectionError"),
    }
)


_CREDENTIAL_CODES = frozenset(
    {
        *("ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"),
        *("TokenRefreshRequired", "AuthorizationHeaderMalformed"),
    }
)


_CREDENTIAL_CLASSES = frozenset(
    {
        *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "RefreshError"),
        *("DefaultCredentialsError", "TokenRetrievalError", "CredentialRetrievalError"),
        *("UnauthorizedSSOTokenError", "SSOTokenLoadError"),
    }
)


def may_pass(error: BaseException) -> bool:
    """Whether the same request is likely to succeed a moment later."""
    # Classes come first, because aiohttp gives the status 400 if a body breaks off.
    if _class_names(error) & _PASSING_CLASSES:
        return True
    code, status = answer_of(error)
    if code or status:
        return code in _PASSING_CODES or status in _PASSING_STATUS
    if isinstance(error, (FileNotFoundError, PermissionError, FileExistsError)):
        return False
    if isinstance(error, (TimeoutError, ConnectionError)):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING_ERRNOS


def answer_of(error: BaseException | None) -> tuple[str, int]:
    """Returns the error code and the HTTP status of a store's answer, as far as they are known."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):  # botocore
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return str(response.get("Error", {}).get("Code", "")), int(status or 0)
        for name in ("status", "code", "status_code"):  # aiohttp, gcsfs, azure
            value = getattr(error, name, None)
            if str(value).isdigit() and 100 <= int(str(value)) < 600:
                return "", int(str(value))
        error = error.__cause__
    return "", 0


def _class_names(error: BaseException | None) -> set[str]:
    names: set[str] = set()
    while error is not None:
        names |= {kind.__name__ for kind in type(error).__mro__}
        error = error.__cause__
    return names


def explain(error: BaseException) -> tuple[StorageReason, str]:
    """Returns the kind of an error, and its explanation for the user."""
    code, _ = answer_of(error)
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "full", "the disk is full; free space and run the same command again"
    if code in _CREDENTIAL_CODES or _class_names(error) & _CREDENTIAL_CLASSES:
        said = code or type(error).__name__
        return "credentials", (
            f"the credentials are missing, wrong or expired ({said}); set them where the store "
            "looks for them (for S3 AWS_PROFILE, AWS_ACCESS_KEY_ID or ~/.aws)"
        )
    if code == "RequestTimeTooSkewed":
        return "credentials", "this machine's clock is wrong and the store refuses it; set it"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "forbidden", "no permission; choose a folder that you may write to"
    if isinstance(error, PermissionError):
        return "forbidden", (
            f"no permission ({code or error}); the credentials in use must allow reading, writing, "
            "listing and deleting there"
        )
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    said = redacted(said.strip() or type(error).__name__)
    if isinstance(error, FileNotFoundError):
        return "missing", said if number else "it does not exist"
    return "other", f"{code}: {said}" if code and code not in said else said


@contextmanager
def translated_errors(action: str, name: str) -> Iterator[None]:
    """Turns an OSError in the block into a StorageError that says what failed and why."""
    try:
        yield
    except OSError as error:
        reason, why = explain(error)
        raise StorageError(f"cannot {action} {error.filename or name}: {why}", reason) from error
