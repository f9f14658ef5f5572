"""Serving the history of a room, page by page.

A page that comes to a place where history is missing asks for it first, so that it is not passed over.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

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
from storage.history import END, Direction, HistorySpan, at, before, find_last_event
from storage.missing_events import list_missing_events
from storage.rooms import RoomRow
from storage.state import StateStore

_ANY: Final = RoomEventFilter()
_REACHES_MAX: Final = 2
_REACH_SECONDS_MAX: Final = 10.0
"""How long a client waits at a gap; what takes longer it gets when it comes again."""


class Backfill(Protocol):
    """Fetches history that this server does not have yet."""

    async def reach(self, room: RoomRow, at: HistoryToken, *, limit: int) -> bool:
        """Fetches some of what precedes a point of a room's history, if anybody has it; whether there is more now.

        It raises nothing.

        Args:
            room: the room.
            at: the point behind an event that refers to what is missing.
            limit: how many events are wanted.
        """
        ...


class NoBackfill:
    """For a server that fetches no history."""

    async def reach(self, room: RoomRow, at: HistoryToken, *, limit: int) -> bool:
        """Fetches nothing."""
        return False


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


@dataclass(frozen=True, slots=True)
class _Gap:
    """Where history is missing.

    Attributes:
        point: the point behind the first event that refers to what is missing.
        again: from where a client has to go on that has found nothing on the way there.
    """

    room: RoomRow
    point: HistoryToken
    again: HistoryToken


class RoomHistory:
    """Serves `/messages`."""

    def __init__(
        self,
        *,
        db: Database,
        access: RoomAccess,
        reader: HistoryReader,
        renderer: EventRenderer,
        states: StateStore,
        backfill: Backfill,
    ) -> None:
        self._db = db
        self._access = access
        self._reader = reader
        self._renderer = renderer
        self._states = states
        self._backfill = backfill

    async def messages(self, requester: Requester, room_id: RoomId, request: HistoryRequest) -> HistoryPage:
        """A page of a room's history.

        Raises:
            Forbidden: the user may not read the room.
        """
        deadline = asyncio.get_running_loop().time() + _REACH_SECONDS_MAX
        page, gap = await self._page(requester, room_id, request)
        for _ in range(_REACHES_MAX):
            if gap is None or not await self._reach(gap, limit=request.limit, deadline=deadline):
                break
            page, gap = await self._page(requester, room_id, request)
        if gap is not None and page.end is None:
            # Nothing on the way to the gap is for this user. That is no end, unless nobody has what is missing.
            page, gap = await self._page(requester, room_id, request)
        return page if gap is None or page.end is not None else replace(page, end=gap.again)

    async def _reach(self, gap: _Gap, *, limit: int, deadline: float) -> bool:
        """Asks for what is missing; whether there is more history now."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self._backfill.reach(gap.room, gap.point, limit=limit)
        except TimeoutError:
            return False

    async def _page(
        self, requester: Requester, room_id: RoomId, request: HistoryRequest
    ) -> tuple[HistoryPage, _Gap | None]:
        """A page of what is here, and where it comes to a gap."""
        async with self._db.connection() as conn:
            return await self._read(conn, requester, room_id, request)

    async def _read(
        self, conn: Connection, requester: Requester, room_id: RoomId, request: HistoryRequest
    ) -> tuple[HistoryPage, _Gap | None]:
        readable = await self._access.require_readable(conn, requester.user_id, room_id)
        span = await asked_span(
            conn, readable, request.direction, from_token=request.from_token, to_token=request.to_token
        )
        if request.from_token is None and request.direction is Direction.BACKWARDS:
            last = await find_last_event(conn, span)
            span = replace(span, upto=span.after if last is None else at(last))
        seen = SeenHistory()
        gap = None
        if request.event_filter.allows_room(room_id):
            seen = await self._reader.read(
                conn,
                requester.user_id,
                span,
                request.direction,
                event_filter=request.event_filter,
                limit=request.event_filter.limit_within(default=request.limit, maximum=request.limit),
            )
            if request.direction is Direction.BACKWARDS and readable.departure is None:
                gap = await _find_gap(conn, readable.room, span, seen)
        chunk = await self._renderer.render(conn, seen.events, requester, memberships=seen.memberships)
        state = await self._members(conn, seen.events, request.event_filter)
        page = HistoryPage(
            start=request.from_token or span.start(request.direction),
            end=_end(seen, request.direction),
            chunk=chunk,
            state=await self._renderer.render(conn, state, requester, bundle=False),
        )
        return page, gap

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


async def _find_gap(conn: Connection, room: RoomRow, span: HistorySpan, seen: SeenHistory) -> _Gap | None:
    """The latest gap that a page comes to on its way backwards, whether or not its events there are seen.

    What nobody has had of late is no gap.
    """
    read = span if seen.rest is None else replace(span, after=seen.rest.upto)
    missing = await list_missing_events(conn, room.room_nid, upto=read.upto.topological, limit=1, due_only=True)
    if not missing or missing[0].topological < read.after.topological:
        return None
    point = HistoryToken(missing[0].topological, END.event_nid)
    # Never where it was before: clients would take that for the end.
    again = HistoryToken(read.upto.topological, max(read.upto.event_nid - 1, 0))
    return _Gap(room, point, again=min(point, again))
