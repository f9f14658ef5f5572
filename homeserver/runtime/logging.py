"""Logs on standard output, one line per event, of structlog and of `logging`: JSON for machines, text for people."""

import io
import json
import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import orjson
import structlog

from homeserver.config.schema import LoggingConfig
from homeserver.web.observation import FAILED_STATUS_MIN, tell_requests

# Libraries that tell at `info` what this server tells itself.
_QUIET: Final = ("hypercorn", "asyncio", "aiohttp", "quart")

# Without the variables of the frames: they may hold passwords and messages.
_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)

Processor = Callable[[Any, str, MutableMapping[str, Any]], Any]


def configure_logging(config: LoggingConfig) -> None:
    """Sends everything that is logged in this process to standard output.

    Lines below the level cost nothing. What is bound by `structlog.contextvars` is added to every line.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    level = logging.getLevelNamesMapping()[config.level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if config.format == "json":
        structlog.configure(
            processors=[*shared, _TRACEBACKS, structlog.processors.JSONRenderer(_json)],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
            cache_logger_on_first_use=True,
        )
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        structlog.configure(
            processors=[*shared, renderer],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.PrintLoggerFactory(sys.stdout),
            cache_logger_on_first_use=True,
        )
    _route_standard_logging(level)
    tell_requests(status_min=0 if config.requests == "all" else FAILED_STATUS_MIN)


def _route_standard_logging(level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [_Route()]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)


class _Route(logging.Handler):
    """Passes the records of `logging` on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Passes one on; a record that cannot be formatted must not end the program."""
        try:
            structlog.get_logger().log(
                record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info or None
            )
        except Exception:  # noqa: BLE001 (as every handler of the standard library does)
            self.handleError(record)


def _json(event: Any, **_: Any) -> bytes:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # for example a lone surrogate, which the slower encoder escapes
        return json.dumps(event, default=str).encode()
