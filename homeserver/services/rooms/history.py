"""Serving the history of a room, page by page.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from homeserver.core.filters import RoomEventFilter
from homeserver.core.ids import RoomId
from homeserver.core.requester import Requester
from homeserver.core.tokens import HistoryToken, SyncToken
from homeserver.services.rooms.access import RoomAccess
from homeserver.services.rooms.history_reader import HistoryReader, SeenHistory, asked_span
from homeserver.services.rooms.rendering import EventRenderer
from homeserver.services.rooms.state_at import state_after
from storage.database import Connection, Database
from storage.events import StoredEvent, list_events
from storage.history import Direction, at, before, find_last_event
from storage.state import StateStore

_ANY: Final = RoomEventFilter()


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """What a client asks of a room's history.

    Attributes:
        from_token: where to start; None for the end of the history that lies opposite of `direction`.
        to_token: where to stop; None for its other end.
        limit: how many events at most.
    """

    direction: Direction
    from_token: HistoryToken | SyncToken | None = None
    to_token: HistoryToken | SyncToken | None = None
    limit: int = 10
    event_filter: RoomEventFilter = _ANY


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of a room's history, ready to be encoded.

    Attributes:
        start: where the page starts.
        end: where the next one does; None if there is none.
        state: the member events of the chunk's senders, if the client loads members lazily; else empty.
    """

    start: HistoryToken | SyncToken
    end: HistoryToken | None
    chunk: Sequence[Any]
    state: Sequence[Any]


class RoomHistory:
    """Serves `/messages`."""

    def __init__(
        self, *, db: Database, access: RoomAccess, reader: HistoryReader, renderer: EventRenderer, states: StateStore
    ) -> None:
        self._db = db
        self._access = access
        self._reader = reader
        self._renderer = renderer
        self._states = states

    async def messages(self, requester: Requester, room_id: RoomId, request: HistoryRequest) -> HistoryPage:
        """A page of a room's history.

        Raises:
            Forbidden: the user may not read the room.
        """
        async with self._db.connection() as conn:
            readable = await self._access.require_readable(conn, requester.user_id, room_id)
            span = await asked_span(
                conn, readable, request.direction, from_token=request.from_token, to_token=request.to_token
            )
            if request.from_token is None and request.direction is Direction.BACKWARDS:
                last = await find_last_event(conn, span)
                span = replace(span, upto=span.after if last is None else at(last))
            seen = SeenHistory()
            if request.event_filter.allows_room(room_id):
                seen = await self._reader.read(
                    conn,
                    requester.user_id,
                    span,
                    request.direction,
                    event_filter=request.event_filter,
                    limit=request.event_filter.limit_within(default=request.limit, maximum=request.limit),
                )
            chunk = await self._renderer.render(conn, seen.events, requester, memberships=seen.memberships)
            state = await self._members(conn, seen.events, request.event_filter)
            return HistoryPage(
                start=request.from_token or span.start(request.direction),
                end=_end(seen, request.direction),
                chunk=chunk,
                state=await self._renderer.render(conn, state, requester, bundle=False),
            )

    async def _members(
        self, conn: Connection, events: Sequence[StoredEvent], event_filter: RoomEventFilter
    ) -> Sequence[StoredEvent]:
        """The member events of those who sent the events, as they were at the first of these."""
        if not events or not event_filter.lazy_load_members:
            return ()
        slots = [("m.room.member", str(sender)) for sender in {event.sender for event in events}]
        state = await state_after(conn, self._states, events[0])
        slot_ids = await self._states.find_slots(conn, slots)
        nids = [state[slot_id] for slot_id in slot_ids.values() if slot_id in state]
        return await list_events(conn, nids)


def _end(seen: SeenHistory, direction: Direction) -> HistoryToken | None:
    """Where the next page starts. Behind an event there is always one, if only to find that nothing follows."""
    if seen.rest is not None:
        return seen.rest.start(direction)
    if not seen.events:
        return None
    return before(seen.events[-1]) if direction is Direction.BACKWARDS else at(seen.events[-1])
