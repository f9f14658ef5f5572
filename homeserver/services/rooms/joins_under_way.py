"""Knowing that this server is just about to come into a room: other servers count it among the members already."""

from collections.abc import Awaitable, Callable
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.ids import RoomId
from storage.database import Database
from storage.leases import is_any_held, list_leases

_WAIT_SECONDS_MAX: Final = 15.0
_WAIT_FOR_ALL_SECONDS_MAX: Final = 5.0
_LOOK_AGAIN_SECONDS: Final = 0.1
_PREFIX: Final = "join:"


def lease_of_join(room_id: RoomId) -> str:
    """The lease that is held while a room is entered."""
    return f"{_PREFIX}{room_id}"


class JoinsUnderWay:
    """Waits for joins to end."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def settle(self, room_id: RoomId) -> None:
        """Waits a while if somebody is joining a room; then what other servers send of it can be taken."""

        async def is_joined() -> bool:
            async with self._db.connection() as conn:
                return bool(await list_leases(conn, [lease_of_join(room_id)]))

        await self._wait_while(is_joined, seconds_max=_WAIT_SECONDS_MAX)

    async def settle_all(self) -> bool:
        """Waits a while if somebody is joining any room; whether somebody was.

        Then what other servers tell of those whom a user meets there can be taken.
        """

        async def is_any_joined() -> bool:
            async with self._db.connection() as conn:
                return await is_any_held(conn, prefix=_PREFIX)

        return await self._wait_while(is_any_joined, seconds_max=_WAIT_FOR_ALL_SECONDS_MAX)

    async def _wait_while(self, condition: Callable[[], Awaitable[bool]], *, seconds_max: float) -> bool:
        """Waits until the condition no longer holds, or for so long; whether it held at all."""
        started, has_held = self._clock.monotonic(), False
        while self._clock.monotonic() - started <= seconds_max and await condition():
            has_held = True
            await self._clock.sleep(_LOOK_AGAIN_SECONDS)
        return has_held
