"""Rooms that this server has come into without being told of all members: what that means until the rest is known.

The state is right in everything but member events, of which most are absent. So an event from another server is judged
in a state in which the members that it cites itself stand in their absent places (`placing.py`). Where absence would
be taken for not being in the room, callers wait. `partial_completion.py` fetches the rest and makes good what was
judged without it.

https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
"""

from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.errors import UnavailableForNow
from homeserver.core.ids import RoomId
from storage.database import Database
from storage.partial_rooms import is_partial_by_id

_WAIT_SECONDS_MAX: Final = 30.0
_SETTLE_SECONDS_MAX: Final = 5.0
_LOOK_AGAIN_SECONDS_MIN: Final = 0.05
_LOOK_AGAIN_SECONDS_MAX: Final = 1.0


class PartialStates:
    """Waits for the members that are missing."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def wait_until_complete(self, room_id: RoomId) -> None:
        """Waits until all members of a room are known; for most rooms, that is so at once.

        Raises:
            UnavailableForNow: that takes too long; it goes on nevertheless.
        """
        if not await self._is_complete_within(room_id, _WAIT_SECONDS_MAX):
            raise UnavailableForNow("Not all members of the room are known yet")

    async def settle(self, room_id: RoomId) -> None:
        """Waits a moment for the members that are missing: those of a small room are known soon after the join."""
        await self._is_complete_within(room_id, _SETTLE_SECONDS_MAX)

    async def _is_complete_within(self, room_id: RoomId, seconds: float) -> bool:
        started = self._clock.monotonic()
        pause_seconds = _LOOK_AGAIN_SECONDS_MIN
        while True:
            async with self._db.connection() as conn:
                if not await is_partial_by_id(conn, room_id):
                    return True
            if self._clock.monotonic() - started > seconds:
                return False
            await self._clock.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LOOK_AGAIN_SECONDS_MAX)
