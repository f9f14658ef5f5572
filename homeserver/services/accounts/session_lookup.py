"""Looks sessions up for the requests that name them: many at once in one statement, and for a moment from memory.

Once the end of a session has been answered, no process may serve it. So what the database says is believed for no
longer than `fresh_ms`: not at all where several processes share the work (requests that arrive together then share one
read), and for a moment where this process is the only one, which forgets at once whatever it ends itself.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.errors import UnavailableForNow
from storage import sessions
from storage.bounded_cache import BoundedCache
from storage.database import Database
from storage.errors import DatabaseError
from storage.sessions import SessionRow

_CACHED_MAX: Final = 50_000
_SESSION_BYTES: Final = 800
_BATCH_MAX: Final = 500
_LOOKUP_SECONDS: Final = 20.0

SessionKey = tuple[int, int]
"""A session's id, and that of a pair of its tokens."""


@dataclass(frozen=True, slots=True)
class _Cached:
    row: SessionRow
    read_at: float


class SessionLookup:
    """The sessions of this server, as they are now."""

    def __init__(self, *, db: Database, clock: Clock, fresh_ms: int) -> None:
        """Takes its means; `fresh_ms` is how long an answer of the database is believed."""
        self._db = db
        self._clock = clock
        self._fresh_seconds = fresh_ms / 1000
        self._cached: BoundedCache[SessionKey, _Cached] = BoundedCache(
            "sessions", weight_max=_CACHED_MAX, bytes_each=_SESSION_BYTES
        )
        # Those that are in use and will have to be read again soon: the next read takes them along.
        self._ageing: set[SessionKey] = set()
        # Raised by every `forget`: what was read before it is not remembered.
        self._epoch = 0
        self._waiting: dict[SessionKey, asyncio.Future[SessionRow | None]] = {}
        self._reading = asyncio.Lock()

    async def find(self, key: SessionKey) -> SessionRow | None:
        """A session with its user's standing; None if it has been ended."""
        cached = self._cached.get(key)
        if cached is not None:
            age_seconds = self._clock.monotonic() - cached.read_at
            if age_seconds < self._fresh_seconds:
                if age_seconds > self._fresh_seconds / 2 and len(self._ageing) < _BATCH_MAX:
                    self._ageing.add(key)
                return cached.row
        return await self._read(key)

    def forget(self) -> None:
        """Forgets what was read; to be called after the commit of whatever ended sessions or changed users."""
        self._epoch += 1
        self._cached.clear()
        self._ageing.clear()

    async def _read(self, key: SessionKey) -> SessionRow | None:
        """Joins those who wait for the next read. Whoever finds no read under way makes it, for all who wait."""
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                while True:
                    future = self._waiting.get(key)
                    if future is None:
                        future = self._waiting[key] = asyncio.get_running_loop().create_future()
                    async with self._reading:
                        if not future.done():
                            await self._read_waiting()
                    if future.done() and not future.cancelled():
                        return future.result()
        except TimeoutError:
            raise UnavailableForNow("The session could not be looked up in time") from None

    async def _read_waiting(self) -> None:
        """Reads what is waited for now. Later requests wait for the next read: this one may be older than they are."""
        batch = dict(list(self._waiting.items())[:_BATCH_MAX])
        for key in batch:
            del self._waiting[key]
        keys = list(self._ageing.union(batch))
        self._ageing.clear()
        epoch, started = self._epoch, self._clock.monotonic()
        try:
            async with self._db.connection() as conn:
                rows = await sessions.list_sessions(
                    conn, session_ids=[key[0] for key in keys], pair_ids=[key[1] for key in keys]
                )
        except DatabaseError as error:
            for future in batch.values():
                future.set_exception(error)
                future.exception()  # those who wait may have gone away: it counts as seen
        else:
            for key, future in batch.items():
                future.set_result(rows.get(key))
            if self._fresh_seconds > 0 and epoch == self._epoch:
                self._remember(keys, rows, started)
        finally:
            # Only the reader was cancelled: the others' requests stand, and one of them reads again.
            for future in batch.values():
                future.cancel()

    def _remember(self, keys: Sequence[SessionKey], rows: Mapping[SessionKey, SessionRow], read_at: float) -> None:
        for key in keys:
            row = rows.get(key)
            if row is None:
                self._cached.discard(key)
            else:
                self._cached.put(key, _Cached(row=row, read_at=read_at))
