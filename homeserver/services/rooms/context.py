"""Single events, and what happened around them.

An event that is not here, one that stands in another room, and one that the user may not see are refused alike.

https://spec.matrix.org/v1.19/client-server-api/#event-context
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from homeserver.core.errors import Forbidden, NotFound
from homeserver.core.filters import RoomEventFilter
from homeserver.core.ids import EventId, RoomId
from homeserver.core.requester import Requester
from homeserver.core.tokens import HistoryToken
from homeserver.services.rooms.access import RoomAccess
from homeserver.services.rooms.history_reader import HistoryReader, SeenHistory, passes, readable_span
from homeserver.services.rooms.rendering import EventRenderer
from homeserver.services.rooms.state_at import state_after
from storage.database import Connection, Database
from storage.events import StoredEvent, find_event
from storage.history import Direction, HistorySpan, at, before, find_event_in_room
from storage.state import StateStore
from storage.state_events import list_state_events

_NOT_FOUND: Final = "Event not found"


@dataclass(frozen=True, slots=True)
class EventContext:
    """An event and its surroundings, ready to be encoded.

    Attributes:
        start: just before the earliest event, to page backwards from.
        end: just behind the last event, to page forwards from.
        events_before: the closest first.
        events_after: the closest first.
        state: the state at the last event.
    """

    start: HistoryToken
    end: HistoryToken
    event: Any
    events_before: Sequence[Any]
    events_after: Sequence[Any]
    state: Sequence[Any]


class EventContexts:
    """Finds single events."""

    def __init__(
        self, *, db: Database, access: RoomAccess, reader: HistoryReader, renderer: EventRenderer, states: StateStore
    ) -> None:
        self._db = db
        self._access = access
        self._reader = reader
        self._renderer = renderer
        self._states = states

    async def event(self, requester: Requester, room_id: RoomId, event_id: EventId) -> Any:
        """One event, ready to be encoded.

        Raises:
            NotFound: it is not known, or the user may not see it.
        """
        async with self._db.connection() as conn:
            return await self._event(conn, requester, room_id, event_id)

    async def event_of_any_room(self, requester: Requester, event_id: EventId) -> Any:
        """One event, whatever room it is in; as `event`."""
        async with self._db.connection() as conn:
            found = await find_event(conn, event_id)
            if found is None:
                raise NotFound(_NOT_FOUND)
            return await self._event(conn, requester, found.room_id, event_id)

    async def context(
        self, requester: Requester, room_id: RoomId, event_id: EventId, *, event_filter: RoomEventFilter, limit: int
    ) -> EventContext:
        """An event, the events around it (`limit` of them, half before and half after), and the state.

        Raises:
            Forbidden: the user may not read the room.
            NotFound: the event is not known, or the user may not see it.
        """
        async with self._db.connection() as conn:
            span = readable_span(await self._access.require_readable(conn, requester.user_id, room_id))
            event, memberships = await self._visible_event(conn, requester, room_id, event_id)
            earlier = await self._run(conn, requester, span, event, Direction.BACKWARDS, event_filter, limit // 2)
            later = await self._run(conn, requester, span, event, Direction.FORWARDS, event_filter, limit - limit // 2)
            shown = [event, *earlier.events, *later.events]
            rendered = await self._renderer.render(
                conn, shown, requester, memberships={**memberships, **earlier.memberships, **later.memberships}
            )
            state = await self._state(conn, shown, event_filter)
            count = 1 + len(earlier.events)
            return EventContext(
                start=before(earlier.events[-1] if earlier.events else event),
                end=at(later.events[-1] if later.events else event),
                event=rendered[0],
                events_before=rendered[1:count],
                events_after=rendered[count:],
                state=await self._renderer.render(conn, state, requester, bundle=False),
            )

    async def _event(self, conn: Connection, requester: Requester, room_id: RoomId, event_id: EventId) -> Any:
        try:
            await self._access.require_readable(conn, requester.user_id, room_id)
        except Forbidden as error:
            raise NotFound(_NOT_FOUND) from error
        event, memberships = await self._visible_event(conn, requester, room_id, event_id)
        return (await self._renderer.render(conn, [event], requester, memberships=memberships))[0]

    async def _visible_event(
        self, conn: Connection, requester: Requester, room_id: RoomId, event_id: EventId
    ) -> tuple[StoredEvent, Mapping[EventId, str]]:
        """An event that the user may see, and its membership there.

        Raises:
            NotFound: there is no such event.
        """
        event = await find_event_in_room(conn, room_id=room_id, event_id=event_id)
        visible = await self._access.visible(conn, requester.user_id, [] if event is None else [event])
        if not visible.events:
            raise NotFound(_NOT_FOUND)
        return visible.events[0], visible.memberships

    async def _run(
        self,
        conn: Connection,
        requester: Requester,
        span: HistorySpan,
        event: StoredEvent,
        direction: Direction,
        event_filter: RoomEventFilter,
        limit: int,
    ) -> SeenHistory:
        """The events on one side of an event."""
        if not limit or not event_filter.allows_room(event.room_id):
            return SeenHistory()
        return await self._reader.read(
            conn,
            requester.user_id,
            span.beyond(event, direction),
            direction,
            event_filter=event_filter,
            limit=limit,
        )

    async def _state(
        self, conn: Connection, shown: Sequence[StoredEvent], event_filter: RoomEventFilter
    ) -> Sequence[StoredEvent]:
        """The state at the last of the shown events, as much of it as the filter lets through."""
        last = max(shown, key=at)
        state = await state_after(conn, self._states, last)
        members = {event.sender for event in shown} if event_filter.lazy_load_members else None
        events = await list_state_events(conn, state.values(), event_filter=event_filter, members=members)
        return [event for event in events if passes(event_filter, event)]
