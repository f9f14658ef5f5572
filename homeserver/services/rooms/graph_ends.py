"""Joining the ends of a room's graph: an event that says nothing follows them all when nobody speaks.

Each end that is not followed costs work whenever an event comes. Where users of this server speak, their events follow
the ends; where they only listen, this does.
"""

from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.errors import MatrixError
from homeserver.core.ids import RoomId, ServerName
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.drafts import Draft
from homeserver.services.rooms.hidden_events import DUMMY_EVENT
from storage.bounded_cache import BoundedCache
from storage.database import Database
from storage.memberships import find_joined_of_server
from storage.rooms import find_room

_ENDS_MAX: Final = 10
_TRIED_USERS_MAX: Final = 5
_PAUSE_SECONDS: Final = 60.0


class GraphEnds:
    """Keeps the number of ends of each room small."""

    def __init__(self, *, db: Database, clock: Clock, appender: Appender, server_name: ServerName) -> None:
        self._db = db
        self._clock = clock
        self._appender = appender
        self._server_name = server_name
        self._tried: BoundedCache[RoomId, float] = BoundedCache("graph_ends_tried", weight_max=10_000)

    async def join(self, room_id: RoomId) -> None:
        """Joins the ends of a room if there are too many and a user of this server may send something.

        It is tried once a minute at most.
        """
        tried = self._tried.get(room_id)
        if tried is not None and self._clock.monotonic() < tried + _PAUSE_SECONDS:
            return
        async with self._db.connection() as conn:
            room = await find_room(conn, room_id)
            if room is None or len(room.forward_extremities) <= _ENDS_MAX:
                return
            users = await find_joined_of_server(conn, room.room_nid, self._server_name, limit=_TRIED_USERS_MAX)
        self._tried.put(room_id, self._clock.monotonic())
        for user_id in users:
            draft = Draft(type=DUMMY_EVENT, sender=user_id, content={})
            try:
                await self._appender.append(room_id, lambda _, draft=draft: [draft])
            except MatrixError:
                continue
            return
