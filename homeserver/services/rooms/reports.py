"""Reports of what users find inappropriate, for the administrators of this server.

https://spec.matrix.org/v1.19/client-server-api/#reporting-content
"""

from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden, NotFound
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.requester import Requester
from homeserver.services.rooms.access import RoomAccess
from storage.database import Database
from storage.history import find_event_in_room
from storage.reports import insert_report
from storage.rooms import get_room
from storage.users import find_user


class Reports:
    """Takes reports."""

    def __init__(self, *, db: Database, access: RoomAccess, clock: Clock, server_name: ServerName) -> None:
        self._db = db
        self._access = access
        self._clock = clock
        self._server_name = server_name

    async def report_event(
        self, requester: Requester, room_id: RoomId, event_id: EventId, *, reason: str | None, score: int | None
    ) -> None:
        """Reports an event of a room that the requester is in.

        Raises:
            NotFound: the requester is not in the room, or does not see such an event there.
        """
        async with self._db.connection() as conn:
            try:
                await self._access.require_joined(conn, requester.user_id, room_id)
            except Forbidden as error:
                raise _no_event() from error
            event = await find_event_in_room(conn, room_id=room_id, event_id=event_id)
            if event is None or not await self._access.filter_visible(conn, requester.user_id, [event]):
                raise _no_event()
            await insert_report(
                conn,
                created_ts=self._clock.now_ms(),
                reporter=requester.user_id,
                room_id=room_id,
                event_id=event_id,
                reason=reason,
                score=score,
            )

    async def report_room(self, requester: Requester, room_id: RoomId, *, reason: str) -> None:
        """Reports a room, whether or not the requester is in it.

        Raises:
            NotFound: there is no such room here.
        """
        async with self._db.connection() as conn:
            await get_room(conn, room_id)
            await insert_report(
                conn, created_ts=self._clock.now_ms(), reporter=requester.user_id, room_id=room_id, reason=reason
            )

    async def report_user(self, requester: Requester, user_id: UserId, *, reason: str) -> None:
        """Reports a user of this or another server.

        Raises:
            NotFound: it is one of this server's, and there is none of that name.
        """
        async with self._db.connection() as conn:
            if user_id.server_name == self._server_name and await find_user(conn, user_id) is None:
                raise NotFound("The user was not found")
            await insert_report(
                conn, created_ts=self._clock.now_ms(), reporter=requester.user_id, user_id=user_id, reason=reason
            )


def _no_event() -> NotFound:
    return NotFound("The event was not found or you are not joined to the room")
