"""The history of rooms for other servers: what precedes events, and what lies between events.

Events that the asking server may not see are told as a redaction would leave them: it needs them for its graph.

https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

import orjson

from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.services.rooms.federation_form import list_federation_forms
from homeserver.services.rooms.server_access import ServerAccess
from storage.database import Connection, Database
from storage.event_graph import list_ancestors
from storage.events import StoredEvent

BACKFILL_MAX: Final = 100
"""How many events one answer to `/backfill` has."""
MISSING_EVENTS_MAX: Final = 20
"""How many events one answer to `/get_missing_events` has."""


class ServedHistory:
    """Serves history to other servers that are in a room now."""

    def __init__(self, *, db: Database, access: ServerAccess) -> None:
        self._db = db
        self._access = access

    async def backfill(
        self, origin: ServerName, room_id: RoomId, event_ids: Collection[EventId], *, limit: int
    ) -> Sequence[Any]:
        """Events and what precedes them, the closest to them first, ready to be encoded.

        Args:
            origin: who asks.
            room_id: the room; events of others are passed over.
            event_ids: where to start; they are among the answer.
            limit: how many events at most; beyond `BACKFILL_MAX` it makes no difference.

        Raises:
            Forbidden: the server is not in the room, or there is no such room.
        """
        async with self._db.connection() as conn:
            room = await self._access.require_in_room(conn, origin, room_id)
            events = await list_ancestors(
                conn, room.room_nid, event_ids, including_start=True, limit=min(limit, BACKFILL_MAX)
            )
            return await self._forms(conn, origin, events)

    async def missing_events(
        self,
        origin: ServerName,
        room_id: RoomId,
        *,
        earliest: Collection[EventId],
        latest: Collection[EventId],
        limit: int,
        min_depth: int = 0,
    ) -> Sequence[Any]:
        """What precedes the latest events and not the earliest ones, the oldest first, ready to be encoded.

        Args:
            origin: who asks.
            room_id: the room; events of others are passed over.
            earliest: events that the server has; neither they nor what can be reached only by them are told.
            latest: where to start; they are not among the answer.
            limit: how many events at most, of which those closest to `latest` are told; beyond `MISSING_EVENTS_MAX`
                it makes no difference.
            min_depth: events of a smaller depth are not told.

        Raises:
            Forbidden: the server is not in the room, or there is no such room.
        """
        async with self._db.connection() as conn:
            room = await self._access.require_in_room(conn, origin, room_id)
            events = await list_ancestors(
                conn,
                room.room_nid,
                latest,
                stop_at=earliest,
                depth_min=min_depth,
                including_start=False,
                limit=min(limit, MISSING_EVENTS_MAX),
            )
            return await self._forms(conn, origin, events[::-1])

    async def _forms(self, conn: Connection, origin: ServerName, events: Sequence[StoredEvent]) -> Sequence[Any]:
        """The events in their order, as far as the server may see them."""
        visible = await self._access.visible(conn, origin, events)
        hidden = {event.event_nid for event, is_visible in zip(events, visible, strict=True) if not is_visible}
        forms = await list_federation_forms(conn, [event.event_nid for event in events], redacted=hidden)
        return [orjson.Fragment(forms[event.event_nid]) for event in events]
