"""Sends an answer through ASGI messages, with the headers that all responses have."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

import structlog

from homeserver.web.answer import STATUS_CLIENT_GONE, Answer
from homeserver.web.body import AsgiBody
from homeserver.web.cors import CORS_HEADERS_RAW
from homeserver.web.waiting import unless_ended

Send = Callable[[Mapping[str, Any]], Awaitable[None]]
"""What an ASGI server hands over to send messages."""

DISCARD_BYTES_MAX: Final = 16 * 1024 * 1024

_PART_BYTES: Final = 256 * 1024

_log = structlog.get_logger()

_NOT_STORED: Final = (b"cache-control", b"no-store")
_WITHOUT_BODY: Final = frozenset({204, 304})


async def send_answer(
    answer: Answer,
    *,
    method: str,
    request_id: str,
    body: AsgiBody,
    send: Send,
    send_seconds: float,
    discard_seconds: float,
) -> None:
    """Sends an answer.

    Args:
        answer: what to send; nothing if the client is gone.
        method: of the request; HEAD gets no body.
        request_id: goes back in `X-Request-ID`.
        body: the request's; what was not read of it is read and dropped, within limits, for else the connection would
            be reset under a client that still sends, and it would not see the answer.
        send: ASGI's.
        send_seconds: the time that the client may take for each part; then the connection is given up.
        discard_seconds: the time for dropping what was not read.
    """
    if answer.status == STATUS_CLIENT_GONE:
        return
    headers = _raw_headers(answer, request_id)
    start = {"type": "http.response.start", "status": answer.status, "headers": headers}
    content = b"" if method == "HEAD" or answer.status in _WITHOUT_BODY else answer.body
    try:
        async with asyncio.timeout(send_seconds) as limit:
            await send(start)
            if not isinstance(content, bytes) or len(content) > _PART_BYTES:
                sending = _send_parts(_parts(content), send, limit, send_seconds)
                await (unless_ended(sending, body.disconnected) if body.complete else sending)
                content = b""
            await send({"type": "http.response.body", "body": content, "more_body": not body.complete})
        if not body.complete:
            await body.discard(bytes_max=DISCARD_BYTES_MAX, seconds=discard_seconds)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    except TimeoutError:
        _log.info("the client does not take its answer")
    except Exception as error:  # noqa: BLE001 - a stream that fails half-way can only be cut off, and be told of
        _log.error("an answer broke off", exc_info=error)
    finally:
        if isinstance(answer.body, AsyncGenerator):
            await answer.body.aclose()


async def _send_parts(parts: AsyncGenerator[bytes, None], send: Send, limit: asyncio.Timeout, seconds: float) -> None:
    """Sends a body part by part; the time limit begins anew with each."""
    loop = asyncio.get_running_loop()
    async with aclosing(parts):
        async for part in parts:
            limit.reschedule(loop.time() + seconds)
            if part:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            # Neither the stream nor a lost connection need ever wait; others must have their turn all the same.
            await asyncio.sleep(0)  # noqa: TID251 - no time passes


async def _parts(content: bytes | AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The parts of a streamed body, or of a large one, so that slow clients are given time for each of them."""
    if isinstance(content, bytes):
        for begin in range(0, len(content), _PART_BYTES):
            yield content[begin : begin + _PART_BYTES]
    else:
        async for part in content:
            yield part


def _raw_headers(answer: Answer, request_id: str) -> list[tuple[bytes, bytes]]:
    headers = [*CORS_HEADERS_RAW, (b"x-request-id", request_id.encode())]
    if answer.status not in _WITHOUT_BODY:
        headers.append((b"content-type", answer.content_type.encode("latin-1")))
        if answer.size_bytes is not None:
            headers.append((b"content-length", str(answer.size_bytes).encode()))
    cached = False
    for name, value in answer.headers.items():
        lower = name.lower()
        cached = cached or lower == "cache-control"
        headers.append((lower.encode(), value.encode("latin-1")))
    if not cached:
        headers.append(_NOT_STORED)
    return headers
