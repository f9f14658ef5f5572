"""One lane for each room: within this process, events are added to a room one after the other.

Between processes nothing is locked; `append.py` tells how they find out about each other.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import Histogram

from homeserver.core.errors import UnavailableForNow
from homeserver.core.ids import RoomId

LANE_WAIT_SECONDS: Final = Histogram(
    "heliograph_room_lane_wait_seconds",
    "How long an event waited for its turn in its room.",
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10),
)


class Lanes:
    """The lanes of all rooms. A lane exists only while somebody is in it."""

    def __init__(self, *, wait_seconds_max: float = 10.0, waiting_max: int = 1000) -> None:
        """Takes how long, and with how many others, one waits for a lane at most."""
        self._lanes: dict[RoomId, asyncio.Lock] = {}
        self._users: dict[RoomId, int] = {}
        self._wait_seconds_max = wait_seconds_max
        self._waiting_max = waiting_max

    @asynccontextmanager
    async def enter(self, room_id: RoomId) -> AsyncIterator[None]:
        """Waits for the room's lane and holds it.

        Raises:
            UnavailableForNow: it did not become free in time, or too many wait already.
        """
        users = self._users.get(room_id, 0)
        if users > self._waiting_max:
            raise UnavailableForNow("The room is too busy")
        lane = self._lanes.setdefault(room_id, asyncio.Lock())
        self._users[room_id] = users + 1
        try:
            with LANE_WAIT_SECONDS.time():
                await self._acquire(lane)
            try:
                yield
            finally:
                lane.release()
        finally:
            self._leave(room_id)

    async def _acquire(self, lane: asyncio.Lock) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds_max):
                await lane.acquire()
        except TimeoutError as error:
            raise UnavailableForNow("The room is too busy") from error

    def _leave(self, room_id: RoomId) -> None:
        self._users[room_id] -= 1
        if not self._users[room_id]:
            del self._users[room_id], self._lanes[room_id]
