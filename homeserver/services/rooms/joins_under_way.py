"""Knowing that this server is just about to come into a room: other servers count it among the members already."""

from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.ids import RoomId
from storage.database import Database
from storage.leases import list_leases

_WAIT_SECONDS_MAX: Final = 15.0
_LOOK_AGAIN_SECONDS: Final = 0.1


def lease_of_join(room_id: RoomId) -> str:
    """The lease that is held while a room is entered."""
    return f"join:{room_id}"


class JoinsUnderWay:
    """Waits for joins to end."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def settle(self, room_id: RoomId) -> None:
        """Waits a while if somebody is joining a room; then what other servers send of it can be taken."""
        started = self._clock.monotonic()
        while self._clock.monotonic() - started <= _WAIT_SECONDS_MAX:
            async with self._db.connection() as conn:
                if not await list_leases(conn, [lease_of_join(room_id)]):
                    return
            await self._clock.sleep(_LOOK_AGAIN_SECONDS)
