"""Classify the exceptions of MLflow's client, for writing and reading.

The class is decided by error code, HTTP status and exception type, never by the words of a message,
which contain the user's own keys and values. No code says that a run or an experiment is deleted;
the sink looks at its life-cycle stage.

An answer is MLflow's own if it is JSON with an error code. Any other comes from something on the
way, a proxy or a login page, and says nothing about the content that was sent.
"""

import errno
import re
from collections.abc import Iterator
from typing import Any

from mlflow.exceptions import InvalidUrlException, MlflowException, RestException

from orbiter_mlflow.errors import (
    DeliveryError,
    HeldError,
    RejectedError,
    TransientError,
    UnsupportedError,
)
from orbiter_mlflow.text.escaping import message, page_title
from orbiter_mlflow.text.urls import without_userinfo

# MLflow gives the status of an answer without JSON only in the first words of its message, which
# are its own up to the status (mlflow/utils/rest_utils.py, verify_rest_response).
_FOREIGN_ANSWER = re.compile(r"API request to endpoint \S+ failed with error code (\d{3}) != \d{3}")
# The words of urllib3 for a status that mlflow retries.
_RETRIED_STATUS = re.compile(r"too many (\d{3}) error responses")

_GONE = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})
_DENIED = frozenset({"PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED", "UNAUTHENTICATED"})
_LACKING = frozenset({"ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED"})
_INVALID = frozenset({"INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"})
_FAILED = frozenset({"INTERNAL_ERROR", "INVALID_STATE", "DATA_LOSS"})

_DENIED_STATUS = frozenset({401, 403})
_LACKING_STATUS = frozenset({404, 405, 501})
_TOO_LARGE_STATUS = frozenset({413, 414, 431})
_RETRY_STATUS = frozenset({408, 425, 429, 499})
_NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

_UNREACHED = re.compile(r"API request to (\w+://\S+) failed with (?:exception|timeout)")
_CAUSE = re.compile(r"\[Errno -?\d+\] [^'\")\]]+|Read timed out|[Cc]onnect timeout")
_UNSUPPORTED = re.compile(r"got unsupported URI ('[^']*')")


def classified(error: Exception) -> DeliveryError:
    """Classify an exception of a request: the returned error's class says what to do next."""
    if isinstance(error, DeliveryError):
        return error
    text = _words(error)
    if isinstance(error, RestException) and _is_own(error.json):
        return _by_code(error.error_code, text)
    status = _status(error)
    if status is not None:
        return _by_status(status, _foreign(error, status))
    if isinstance(error, InvalidUrlException):
        return HeldError(f"{text} (check the tracking URI)")
    if isinstance(error, RestException) or any(map(_is_of_requests, _chain(error))):
        return TransientError(text)
    if isinstance(error, MlflowException):
        if error.message.startswith("API request to "):  # 200, and no JSON: a login page
            return TransientError(_foreign(error, 200))
        return _by_code(error.error_code, text)
    if isinstance(error, ImportError):
        return HeldError(f"{text} (install what the tracking URI needs)")
    # While a store is being opened, mlflow lets the database' own errors through.
    if isinstance(error, OSError) or type(error).__module__.startswith("sqlalchemy."):
        return TransientError(text)
    return RejectedError(text)


def classified_artifact(error: Exception) -> DeliveryError:
    """Classify an exception of an upload, as artifact stores raise those of their own libraries.

    Anything that is not known to be a refusal is trouble of the store, and the file can wait.
    """
    if isinstance(error, DeliveryError):
        return error
    if isinstance(error, MlflowException | ImportError):
        # From the requests around the upload: only MLflow's own refusals are the file's fault.
        found = classified(error)
        own = isinstance(found, HeldError) or (isinstance(found, RejectedError) and found.definite)
        return found if own else TransientError(str(found))
    text = _words(error)
    status = _status(error)
    if status in _DENIED_STATUS:
        return HeldError(f"{text} (may this machine write to the artifact store?)")
    if status is not None and 400 <= status < 500 and status not in _RETRY_STATUS | {407}:
        return RejectedError(text)
    if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
        return HeldError(f"{text} (this machine cannot write to the artifact store)")
    return TransientError(text)


def _by_code(code: str, text: str) -> DeliveryError:
    """Classify an answer of MLflow's own, or an error of a store without a server."""
    if code in _GONE:
        return HeldError(f"{text} (check that the run and its experiment exist)")
    if code in _DENIED:
        return HeldError(f"{text} (check the credentials)")
    if code in _LACKING:
        return UnsupportedError(text)
    if code in _INVALID:
        return RejectedError(text, definite=True)
    if code == "BAD_REQUEST":  # a database' refusal, perhaps of two clients that did the same
        return RejectedError(text)
    return TransientError(text, answered=code in _FAILED)


def _by_status(status: int, text: str) -> DeliveryError:
    """Classify an answer that is not MLflow's own, such as the basic-auth app's 401 and 403."""
    if status in _DENIED_STATUS:
        return HeldError(f"{text} (check the credentials)")
    if status in _LACKING_STATUS:
        return UnsupportedError(text)
    if status in _TOO_LARGE_STATUS:
        return RejectedError(text)
    return TransientError(text, answered=status == 500)


def _is_own(answer: Any) -> bool:
    return isinstance(answer, dict) and isinstance(answer.get("error_code"), str)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and its causes and contexts, outermost first."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def _is_of_requests(error: BaseException) -> bool:
    return any(base.__name__ == "RequestException" for base in type(error).__mro__)


def _status(error: Exception) -> int | None:
    """The HTTP status of an answer that is not MLflow's own; None if there was no answer."""
    if isinstance(error, MlflowException) and (found := _FOREIGN_ANSWER.match(error.message)):
        return int(found[1])
    for one in _chain(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):  # of botocore
            metadata = response.get("ResponseMetadata")
            status = metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None
        else:
            status = getattr(response, "status_code", None) or getattr(one, "status_code", None)
        if isinstance(status, int):
            return status
        reason = getattr(one.args[0] if one.args else None, "reason", None)
        if found := _RETRIED_STATUS.fullmatch(str(reason)):
            return int(found[1])
    return None


def _foreign(error: Exception, status: int) -> str:
    """An answer that is not MLflow's, in words."""
    text = without_userinfo(str(error))
    title = page_title(text)
    shown = f" ({title})" if title else ""
    if 300 <= status < 400:
        hint = "; it redirects: set the tracking URI to where it leads, perhaps https"
    elif status in _LACKING_STATUS:
        hint = "; check the tracking URI, or the server lacks this feature"
    else:
        hint = ""
    where = _FOREIGN_ANSWER.match(text)
    request = f" to {text.split()[4]}" if where else ""
    return f"HTTP {status}{request}, not an answer of MLflow's own{shown}{hint}"


def _words(error: Exception) -> str:
    """Describe an exception for users, as mlflow's own words are for its developers."""
    text = without_userinfo(f"{type(error).__name__}: {error}".strip())
    unreached = _UNREACHED.search(text)
    if unreached and _status(error) is None:
        causes = _CAUSE.findall(text[unreached.end() :])  # the innermost comes last
        cause = f" ({causes[-1]})" if causes else ""
        return f"no answer to {unreached[1]}{cause}: check that it is up, and the tracking URI"
    if unsupported := _UNSUPPORTED.search(text):
        return f"MLflow has no store for the tracking URI {unsupported[1]}: check how it begins"
    return message(text)
