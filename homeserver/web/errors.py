"""Turns whatever an endpoint raises into the response for the client; the only place that does so.

https://spec.matrix.org/v1.19/client-server-api/#standard-error-response
"""

from typing import Final

import structlog

from homeserver.core.errors import LimitExceeded, MatrixError, UnavailableForNow, Unrecognized
from homeserver.web.endpoint import Response

_log = structlog.get_logger()

_RETRY_AFTER_SECONDS: Final = 5


class MethodNotAllowed(Unrecognized):
    """The path is known, but not with this method."""

    default_status = 405

    def __init__(self, allowed: frozenset[str]) -> None:
        super().__init__("This endpoint does not know that method")
        self.allowed = allowed


def error_response(error: Exception) -> Response:
    """The response for an exception: a `MatrixError`'s own, or 500 without detail, with the traceback in the log."""
    matrix_error = _matrix_error(error)
    if matrix_error is None:
        _log.error("request failed", exc_info=error)
        return Response({"errcode": "M_UNKNOWN", "error": "Internal server error"}, status=500)
    headers = {}
    match matrix_error:
        case LimitExceeded(retry_after_ms=retry_after_ms):
            headers["Retry-After"] = str(max(1, -(-retry_after_ms // 1000)))
        case UnavailableForNow():
            _log.warning("request refused", reason=matrix_error.message)
            headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
        case MethodNotAllowed(allowed=allowed):
            headers["Allow"] = ", ".join(sorted(allowed))
        case _:
            pass
    return Response(matrix_error.body(), status=matrix_error.status, headers=headers)


def _matrix_error(error: BaseException) -> MatrixError | None:
    """The error for the client in an exception, also if it comes alone out of a `TaskGroup`."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, MatrixError) else None
