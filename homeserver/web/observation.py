"""What is recorded of each request: a few metrics, and a log line if wanted; never a token, a body, or a query."""

from functools import lru_cache
from typing import Final

import structlog
from prometheus_client import Counter, Gauge, Histogram

from homeserver.web.endpoint import Request

_log = structlog.get_logger()

UNRECOGNIZED: Final = "unrecognized"
"""The name under which requests are counted that found no endpoint."""

REQUEST_SECONDS: Final = Histogram(
    "heliograph_request_seconds",
    "Time from the first look at a request to its complete answer, by operation; long polls wait in it",
    ["operation"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
REQUESTS: Final = Counter("heliograph_requests", "Requests answered", ["operation", "transport", "status"])
REQUESTS_IN_FLIGHT: Final = Gauge(
    "heliograph_requests_in_flight", "Requests that are being answered now", multiprocess_mode="livesum"
)
FAILED_STATUS_MIN: Final = 500

SOCKETS: Final = Gauge("heliograph_websockets", "WebSockets that are open now", multiprocess_mode="livesum")


class _Told:
    """Which requests get a line in this process's log, as `tell_requests` has set it."""

    status_min = 0


def tell_requests(*, status_min: int) -> None:
    """Sets, for this process, from which status on requests get a line in the log; 0 is all of them."""
    _Told.status_min = status_min


@lru_cache(maxsize=2000)
def _metrics_of(operation: str, transport: str, status: int) -> tuple[Histogram, Counter]:
    return REQUEST_SECONDS.labels(operation), REQUESTS.labels(operation, transport, status)


def record_request(
    request: Request, *, operation: str, transport: str, status: int, seconds: float, size_bytes: int | None
) -> None:
    """Records a request that has ended.

    Args:
        request: as far as it got: with its caller, if that was found out.
        operation: the endpoint's name, or `UNRECOGNIZED`.
        transport: `http` or `websocket`.
        status: of the answer; 499 if nobody waits for it any more.
        seconds: how long it took.
        size_bytes: of the answer's body; None if it is streamed.
    """
    times, count = _metrics_of(operation, transport, status)
    times.observe(seconds)
    count.inc()
    if status < _Told.status_min:
        return
    caller = request.caller
    _log.info(
        "request",
        operation=operation,
        transport=transport,
        method=request.method,
        status=status,
        requester=None if caller is None else str(caller.user_id),
        origin=request.origin,
        ip=request.ip,
        duration_ms=round(seconds * 1000, 1),
        bytes=size_bytes,
    )
