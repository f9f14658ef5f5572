"""Syncs pushed over a WebSocket: one `sync` after the other, each begun where the one before ended, as fast as the
client takes them in and no faster.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import orjson

from homeserver.core.clock import Clock
from homeserver.web.answer import Answer, encode_json
from homeserver.web.waiting import unless_ended
from homeserver.web.websocket_frames import Query, SubscribeFrame

_TIMEOUT_MS_DEFAULT: Final = "30000"
_RETRY_SECONDS: Final = 5.0
_TRY_AGAIN: Final = frozenset({429, 503})


class SyncSubscription:
    """A client's wish for syncs to be pushed, from its subscribing to its unsubscribing."""

    def __init__(
        self,
        frame: SubscribeFrame,
        *,
        call_sync: Callable[[Query], Coroutine[Any, Any, Answer]],
        push: Callable[[bytes], Awaitable[None]],
        clock: Clock,
    ) -> None:
        """Prepares it.

        Args:
            frame: what the client asks for.
            call_sync: calls the endpoint `sync` with a query.
            push: sends a sync's JSON to the client.
            clock: waits where the endpoint asks to come again later.
        """
        self._query: dict[str, list[str]] = {"timeout": [_TIMEOUT_MS_DEFAULT], **frame.query}
        self._window = frame.window
        self._call_sync = call_sync
        self._push = push
        self._clock = clock
        self._unacknowledged: deque[str] = deque()
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()

    async def run(self) -> Answer:
        """Pushes syncs until the client unsubscribes (then an empty answer) or one fails (then its answer)."""
        while True:
            await self._wait_for_window()
            answer = await unless_ended(self._next_sync(), self._ended.wait)
            if answer is None:
                return Answer(200, encode_json({}), value={})
            if answer.status != 200 or not isinstance(answer.body, bytes):
                return answer
            sync = answer.value if isinstance(answer.value, dict) else orjson.loads(answer.body)
            next_batch: str = sync["next_batch"]
            self._unacknowledged.append(next_batch)
            self._query["since"] = [next_batch]
            self._query.pop("full_state", None)
            await self._push(answer.body)

    def acknowledge(self, next_batch: str) -> bool:
        """Notes that the client has taken in all syncs up to this one; False if it was sent none such."""
        if next_batch not in self._unacknowledged:
            return False
        while self._unacknowledged.popleft() != next_batch:
            pass
        self._changed.set()
        return True

    def end(self) -> None:
        """Ends the subscription."""
        self._ended.set()
        self._changed.set()

    async def _wait_for_window(self) -> None:
        """Waits until fewer syncs than the window are on their way to the client; the socket limits how long."""
        while len(self._unacknowledged) >= self._window and not self._ended.is_set():
            self._changed.clear()
            await self._changed.wait()

    async def _next_sync(self) -> Answer:
        """The endpoint's answer; asked again while it says that it is too early, or the database is away."""
        while True:
            answer = await self._call_sync(dict(self._query))
            if answer.status not in _TRY_AGAIN:
                return answer
            wait_ms = answer.value.get("retry_after_ms") if isinstance(answer.value, dict) else None
            await self._clock.sleep(_RETRY_SECONDS if wait_ms is None else wait_ms / 1000)
