"""Typing notifications: who begins, who stops, and whose time runs out.

The time is the database's; in each process a loop stops, once a second, those whose time has run out, and wakes the
room. So an end comes through the stream like a beginning, and all workers agree.

https://spec.matrix.org/v1.19/client-server-api/#typing-notifications
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden, InvalidParam
from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.core.requester import Requester
from homeserver.services.ephemeral.joined_room import require_joined
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.ephemeral.wakes import wakes_of
from storage import typing
from storage.bus.base import Bus
from storage.database import Database
from storage.errors import DatabaseError

logger = logging.getLogger(__name__)

TIMEOUT_MS_DEFAULT: Final = 30_000
TIMEOUT_MS_MAX: Final = 120_000
# Other servers do not say how long; they repeat what goes on about twice a minute.
REMOTE_TIMEOUT_MS: Final = 60_000
EXPIRY_SECONDS: Final = 1.0
EXPIRED_MAX: Final = 500
ROUNDS_PER_CLEANING: Final = 300


class Typing:
    """Who is typing in which room."""

    def __init__(self, *, db: Database, bus: Bus, clock: Clock, presence: Presence) -> None:
        """Takes its means; `run()` must be running for typing to end by itself."""
        self._db = db
        self._bus = bus
        self._clock = clock
        self._presence = presence

    async def start(self, requester: Requester, room_id: RoomId, user_id: UserId, *, timeout_ms: int | None) -> None:
        """Says that the requester types, for so long at most, or goes on.

        Raises:
            Forbidden: it is somebody else, or not in the room.
        """
        _require_self(requester, user_id)
        timeout_ms = min(TIMEOUT_MS_DEFAULT if timeout_ms is None else max(timeout_ms, 0), TIMEOUT_MS_MAX)
        async with self._db.connection() as conn:
            room_nid = await require_joined(conn, room_id, user_id)
            position = await typing.upsert_typing(conn, room_nid=room_nid, user_id=user_id, timeout_ms=timeout_ms)
        self._presence.note_activity(user_id)
        await self._wake(room_id, position)

    async def stop(self, requester: Requester, room_id: RoomId, user_id: UserId) -> None:
        """Says that the requester has stopped typing.

        Raises:
            Forbidden: it is somebody else, or not in the room.
        """
        _require_self(requester, user_id)
        async with self._db.connection() as conn:
            room_nid = await require_joined(conn, room_id, user_id)
            position = await typing.stop_typing(conn, room_nid=room_nid, user_id=user_id)
        await self._wake(room_id, position)

    async def receive(self, origin: ServerName, content: Mapping[str, Any]) -> None:
        """Takes what another server tells of one of its users (EDU `m.typing`); what is wrong is passed over."""
        try:
            room_id, user_id = RoomId.parse(content.get("room_id")), UserId.parse(content.get("user_id"))
        except InvalidParam:
            return
        if user_id.server_name != origin or not isinstance(content.get("typing"), bool):
            return
        try:
            async with self._db.connection() as conn:
                room_nid = await require_joined(conn, room_id, user_id)
                if content["typing"]:
                    position = await typing.upsert_typing(
                        conn, room_nid=room_nid, user_id=user_id, timeout_ms=REMOTE_TIMEOUT_MS
                    )
                else:
                    position = await typing.stop_typing(conn, room_nid=room_nid, user_id=user_id)
        except Forbidden:
            return
        await self._wake(room_id, position)

    async def run(self) -> None:
        """Ends the typing of those whose time has run out, until it is cancelled."""
        rounds = 0
        while True:
            await self._clock.sleep(EXPIRY_SECONDS)
            rounds += 1
            try:
                await self.expire()
                if rounds % ROUNDS_PER_CLEANING == 0:
                    async with self._db.connection() as conn:
                        await typing.delete_old_typing(conn)
            except DatabaseError as error:
                logger.warning("typing was not ended: %s", type(error).__name__)

    async def expire(self) -> None:
        """Ends the typing of those whose time has run out."""
        async with self._db.connection() as conn:
            expired = await typing.expire_typing(conn, limit=EXPIRED_MAX)
        if expired:
            keys = frozenset(key for room in expired for key in wakes_of(room.room_id))
            await self._bus.wake(keys, max(room.position for room in expired))

    async def _wake(self, room_id: RoomId, position: int | None) -> None:
        if position is not None:
            await self._bus.wake(wakes_of(room_id), position)


def _require_self(requester: Requester, user_id: UserId) -> None:
    if requester.user_id != user_id:
        raise Forbidden("You can only say of yourself that you are typing")
