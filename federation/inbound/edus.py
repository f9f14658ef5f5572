"""Takes the EDUs of other servers' transactions: typing, receipts, presence.

A server speaks for its own users only, and in a room only as long as the room's access control list lets it; both are
looked at here or by the services that take what is told. What is wrong with one EDU never hurts another.

https://spec.matrix.org/v1.19/server-server-api/#edus
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from prometheus_client import Counter

from homeserver.core.edu import Edu
from homeserver.core.errors import Forbidden, InvalidParam, MatrixError
from homeserver.core.ids import RoomId, ServerName
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.ephemeral.receipts import Receipts
from homeserver.services.ephemeral.typing import Typing
from homeserver.services.rooms.joins_under_way import JoinsUnderWay
from homeserver.services.rooms.server_access import ServerAccess
from storage.database import Database
from storage.errors import DatabaseError
from storage.room_servers import list_rooms_with_acl

logger = logging.getLogger(__name__)

EDUS_MAX: Final = 100
RECEIPT_ROOMS_MAX: Final = 500
"""Of receipts in more rooms than this, in one EDU, the others are passed over."""

EDU_SECONDS_MAX: Final = 10.0

RECEIVED: Final = Counter("heliograph_federation_received_edus", "EDUs of other servers.", ["edu_type", "outcome"])

TakeEdu: TypeAlias = Callable[[ServerName, Mapping[str, Any]], Awaitable[None]]
"""Takes the content of an EDU that a server has sent."""

NO_OTHERS: Final[Mapping[str, TakeEdu]] = MappingProxyType({})


class EduReceiver:
    """Hands EDUs to what they are for."""

    def __init__(
        self,
        *,
        db: Database,
        access: ServerAccess,
        typing: Typing,
        receipts: Receipts,
        presence: Presence,
        arrivals: JoinsUnderWay,
        others: Mapping[str, TakeEdu] = NO_OTHERS,
    ) -> None:
        """Takes what EDUs are for.

        Args:
            db: the database.
            access: knows which servers rooms let take part.
            typing: takes `m.typing`.
            receipts: takes `m.receipt`.
            presence: takes `m.presence`.
            arrivals: knows of rooms that this server is just coming into.
            others: takes EDUs of other types, which belong to no room.
        """
        self._db = db
        self._access = access
        self._typing = typing
        self._receipts = receipts
        self._presence = presence
        self._arrivals = arrivals
        self._takes: dict[str, TakeEdu] = {
            "m.typing": self._take_typing,
            "m.receipt": self._take_receipts,
            "m.presence": self._take_presence,
            **others,
        }

    async def receive(self, origin: ServerName, edus: Sequence[Edu]) -> None:
        """Takes the EDUs of a transaction, in their order. It raises nothing; what is unknown is passed over."""
        for edu in edus[:EDUS_MAX]:
            take = self._takes.get(edu.edu_type)
            if take is None:
                RECEIVED.labels("other", "unknown").inc()
                continue
            outcome = "failed"
            try:
                async with asyncio.timeout(EDU_SECONDS_MAX):
                    await take(origin, edu.content)
                outcome = "taken"
            except (MatrixError, DatabaseError, TimeoutError) as error:
                logger.info("An EDU %s of %s is passed over: %s", edu.edu_type, origin, type(error).__name__)
            except Exception:
                logger.exception("An EDU %s of %s has failed", edu.edu_type, origin)
            RECEIVED.labels(edu.edu_type, outcome).inc()

    async def _take_typing(self, origin: ServerName, content: Mapping[str, Any]) -> None:
        async with self._db.connection() as conn:
            await self._access.require_allowed(conn, origin, RoomId.parse(content.get("room_id")))
        await self._typing.receive(origin, content)

    async def _take_presence(self, origin: ServerName, content: Mapping[str, Any]) -> None:
        strangers = await self._presence.receive(origin, content)
        # A server tells of those in a room as soon as somebody joins it, before that somebody's own server knows.
        if strangers and await self._arrivals.settle_all():
            await self._presence.receive(origin, content)

    async def _take_receipts(self, origin: ServerName, content: Mapping[str, Any]) -> None:
        of_rooms = {room: receipts for room, receipts in islice(content.items(), RECEIPT_ROOMS_MAX) if _is_room(room)}
        async with self._db.connection() as conn:
            for room in await list_rooms_with_acl(conn, of_rooms):
                try:
                    await self._access.require_allowed(conn, origin, RoomId(room))
                except Forbidden:
                    del of_rooms[room]
        await self._receipts.receive(origin, of_rooms)


def _is_room(room: str) -> bool:
    try:
        RoomId.parse(room)
    except InvalidParam:
        return False
    return True
