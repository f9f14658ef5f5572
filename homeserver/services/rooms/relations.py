"""The events that relate to an event.

https://spec.matrix.org/v1.19/client-server-api/#relationships-api
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from homeserver.core.errors import Forbidden, NotFound
from homeserver.core.ids import EventId, RoomId
from homeserver.core.requester import Requester
from homeserver.core.tokens import HistoryToken, SyncToken
from homeserver.services.rooms.access import RoomAccess
from homeserver.services.rooms.history_reader import HistoryReader, asked_span
from homeserver.services.rooms.rendering import EventRenderer
from storage.database import Connection, Database
from storage.events import StoredEvent
from storage.history import Direction, HistorySpan, find_event_in_room
from storage.related_events import list_related

RECURSION_DEPTH_MAX: Final = 3
"""How many relationships are followed one after the other, if the client wants that."""


@dataclass(frozen=True, slots=True)
class RelationsRequest:
    """Which events are wanted that relate to an event.

    Attributes:
        rel_type: the relationship; None for any.
        event_type: the type of the events; None for any.
        from_token: where to start; None for the end of the history that lies opposite of `direction`.
        to_token: where to stop; None for its other end.
        limit: how many events at most.
        recurse: whether events count that relate indirectly; None if the client did not say.
    """

    rel_type: str | None = None
    event_type: str | None = None
    direction: Direction = Direction.BACKWARDS
    from_token: HistoryToken | SyncToken | None = None
    to_token: HistoryToken | SyncToken | None = None
    limit: int = 50
    recurse: bool | None = None


@dataclass(frozen=True, slots=True)
class RelationsPage:
    """A page of related events, ready to be encoded.

    Attributes:
        next_batch: where the next page starts; None if there is none.
        recursion_depth: how many relationships were followed; None if the client did not ask.
    """

    chunk: Sequence[Any]
    next_batch: HistoryToken | None
    recursion_depth: int | None


class Relations:
    """Serves `/relations`."""

    def __init__(self, *, db: Database, access: RoomAccess, reader: HistoryReader, renderer: EventRenderer) -> None:
        self._db = db
        self._access = access
        self._reader = reader
        self._renderer = renderer

    async def related_events(
        self, requester: Requester, room_id: RoomId, event_id: EventId, request: RelationsRequest
    ) -> RelationsPage:
        """A page of the events that relate to an event and that the user may see.

        Raises:
            NotFound: the event is not known, or the user may not see it.
        """
        async with self._db.connection() as conn:
            span = await self._span(conn, requester, room_id, event_id, request)
            depth = RECURSION_DEPTH_MAX if request.recurse else 1

            async def next_page(span: HistorySpan, size: int) -> tuple[Sequence[StoredEvent], HistorySpan | None]:
                page = await list_related(
                    conn,
                    event_id,
                    span,
                    request.direction,
                    rel_type=request.rel_type,
                    event_type=request.event_type,
                    depth_max=depth,
                    limit=size + 1,
                )
                rest = span.beyond(page[size - 1], request.direction) if len(page) > size else None
                return page[:size], rest

            seen = await self._reader.collect(
                conn, requester.user_id, span, request.direction, next_page=next_page, limit=request.limit
            )
            chunk = await self._renderer.render(conn, seen.events, requester, memberships=seen.memberships)
        return RelationsPage(
            chunk,
            next_batch=None if seen.rest is None else seen.rest.start(request.direction),
            recursion_depth=None if request.recurse is None else depth,
        )

    async def _span(
        self,
        conn: Connection,
        requester: Requester,
        room_id: RoomId,
        event_id: EventId,
        request: RelationsRequest,
    ) -> HistorySpan:
        """The history in which to look."""
        try:
            readable = await self._access.require_readable(conn, requester.user_id, room_id)
        except Forbidden as error:
            raise NotFound("Event not found") from error
        parent = await find_event_in_room(conn, room_id=room_id, event_id=event_id)
        if parent is None or not await self._access.filter_visible(conn, requester.user_id, [parent]):
            raise NotFound("Event not found")
        return await asked_span(
            conn, readable, request.direction, from_token=request.from_token, to_token=request.to_token
        )
