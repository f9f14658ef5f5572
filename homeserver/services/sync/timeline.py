"""The timelines of a sync: the newest events of each room in the window, as many as the filter asks for.

https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import orjson

from homeserver.core.filters import RoomEventFilter
from homeserver.core.ids import EventId, UserId
from homeserver.core.requester import Requester
from homeserver.core.tokens import HistoryToken, SyncToken
from homeserver.services.rooms.access import RoomAccess, VisibleEvents
from homeserver.services.sync.membership import SyncedRoom
from homeserver.services.sync.request import SyncWindow
from homeserver.services.sync.room_tails import RoomTails
from storage import timelines
from storage.database import Connection
from storage.events import StoredEvent, list_events
from storage.room_import import GAP
from storage.timelines import TimelineSpan

LIMIT_DEFAULT: Final = 10
LIMIT_MAX: Final = 1000
EVENTS_MAX: Final = 50_000
"""How many events a response may have in all its rooms together, where clients ask for much."""
# Where much is hidden from the reader: how often further events are looked for, each time twice as many.
_PAGES_MAX: Final = 6
_PAGE_EVENTS_MAX: Final = 1000
_EVENT_NID_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Timeline:
    """A room's timeline.

    Attributes:
        events: oldest first.
        limited: there may be earlier events that the reader may see and has not been told of.
        prev_batch: where `/messages` goes on, into the past.
        memberships: the reader's at each event.
    """

    events: Sequence[StoredEvent]
    limited: bool
    prev_batch: HistoryToken | SyncToken
    memberships: Mapping[EventId, str] = field(default_factory=dict)


class Timelines:
    """Reads the timelines of many rooms at once."""

    def __init__(self, *, access: RoomAccess, tails: RoomTails) -> None:
        self._access = access
        self._tails = tails

    async def read(
        self,
        conn: Connection,
        requester: Requester,
        rooms: Sequence[SyncedRoom],
        window: SyncWindow,
        event_filter: RoomEventFilter,
        *,
        ignored_users: Collection[UserId],
    ) -> Mapping[int, Timeline]:
        """The timelines by room_nid. Rooms that have nothing to tell in theirs are absent.

        A room that is new to the client starts at its first event, any other at the window's start; a room that was
        left ends with the event of leaving, and is nothing but that for somebody who was never in it.
        """
        by_nid = {room.room_nid: room for room in rooms if event_filter.allows_room(room.room_id)}
        limit_max = min(LIMIT_MAX, max(LIMIT_DEFAULT, EVENTS_MAX // max(len(by_nid), 1)))
        limit = event_filter.limit_within(default=LIMIT_DEFAULT, maximum=limit_max)
        spans = [_span(room, window) for room in by_nid.values() if room.was_seen]
        found: dict[int, list[StoredEvent]] = {}
        memberships: dict[EventId, str] = {}
        for event in await _ends(conn, by_nid.values(), event_filter):
            found[event.room_nid] = [event]
            memberships[event.event_id] = by_nid[event.room_nid].membership
        page_events = limit + 1
        for _ in range(_PAGES_MAX):
            pages = await self._pages(conn, by_nid, spans, event_filter, limit=page_events, ignored_users=ignored_users)
            shown = await self._shown(conn, requester, by_nid, pages, event_filter)
            memberships |= shown.memberships
            for event in shown.events:
                found.setdefault(event.room_nid, []).append(event)
            spans = [
                replace(span, before_event_nid=pages[span.room_nid][-1].event_nid)
                for span in spans
                if len(pages.get(span.room_nid, ())) >= page_events and len(found.get(span.room_nid, ())) <= limit
            ]
            if not spans:
                break
            page_events = max(page_events, min(2 * page_events, _PAGE_EVENTS_MAX))
        # Those that could not be searched to their end, and those that were entered just now: they have a past.
        cut_off = {span.room_nid for span in spans}
        entered = {room.room_nid for room in by_nid.values() if room.is_new and room.was_seen}
        older = cut_off if window.is_initial else cut_off | entered
        built = {
            room_nid: _timeline(events, memberships, limit=limit, has_more=room_nid in older)
            for room_nid, events in found.items()
        }
        built |= {
            room_nid: replace(built[room_nid], limited=True) for room_nid in await _behind_gaps(conn, built, window)
        }
        nothing = Timeline(events=(), limited=True, prev_batch=SyncToken(window.upto))
        return built | dict.fromkeys(cut_off - built.keys(), nothing)

    async def _pages(
        self,
        conn: Connection,
        rooms: Mapping[int, SyncedRoom],
        spans: Sequence[TimelineSpan],
        event_filter: RoomEventFilter,
        *,
        limit: int,
        ignored_users: Collection[UserId],
    ) -> Mapping[int, Sequence[StoredEvent]]:
        """The newest events of each span, from memory where it has them; see `timelines.list_timelines`."""
        pages: dict[int, Sequence[StoredEvent]] = {}
        others = []
        for span in spans:
            page = None
            if not rooms[span.room_nid].is_new:
                page = self._remembered_page(span, event_filter, limit=limit, ignored_users=ignored_users)
            if page is None:
                others.append(span)
            elif page:
                pages[span.room_nid] = page
        if others:
            self._tails.follow([span.room_nid for span in others if rooms[span.room_nid].is_joined])
            pages |= await timelines.list_timelines(
                conn, others, event_filter=event_filter, limit=limit, ignored_users=ignored_users
            )
        return pages

    def _remembered_page(
        self, span: TimelineSpan, event_filter: RoomEventFilter, *, limit: int, ignored_users: Collection[UserId]
    ) -> Sequence[StoredEvent] | None:
        """A page from the room's tail, newest first; None if that does not reach so far, or cannot be filtered."""
        if event_filter.related_by_senders is not None or event_filter.related_by_rel_types is not None:
            return None
        found = self._tails.find(span.room_nid, since=span.since)
        if found is None:
            return None
        page = [
            recent.event
            for recent in reversed(found)
            if (recent.event.position or 0) < span.upto
            and recent.event.event_nid < span.before_event_nid
            and (recent.event.state_key is not None or recent.event.sender not in ignored_users)
            and passes(event_filter, recent.event)
        ]
        return page[:limit]

    async def _shown(
        self,
        conn: Connection,
        requester: Requester,
        rooms: Mapping[int, SyncedRoom],
        pages: Mapping[int, Sequence[StoredEvent]],
        event_filter: RoomEventFilter,
    ) -> VisibleEvents:
        """The events that the filter lets through and that the reader may see, in their order."""
        wanted = [event for room_nid, events in pages.items() for event in events if passes(event_filter, event)]
        # Whoever was in the room throughout the window may see all of it.
        doubtful = [event for event in wanted if rooms[event.room_nid].is_new or not rooms[event.room_nid].is_joined]
        visible = await self._access.visible(conn, requester.user_id, doubtful)
        seen = {event.event_nid: event for event in visible.events}
        unseen = {event.event_nid for event in doubtful} - seen.keys()
        # Whoever leaves, or refuses an invitation, is told so, whatever the room's history visibility.
        unseen -= {room.event_nid for room in rooms.values()}
        # What is in a room's state now, its members see anyway.
        unseen -= await timelines.list_current(
            conn,
            [
                event.event_nid
                for event in wanted
                if event.event_nid in unseen and event.state_key is not None and rooms[event.room_nid].is_joined
            ],
        )
        events = [seen.get(event.event_nid, event) for event in wanted if event.event_nid not in unseen]
        memberships = {event.event_id: rooms[event.room_nid].membership for event in events}
        return VisibleEvents(events, {**memberships, **visible.memberships})


async def _ends(
    conn: Connection, rooms: Collection[SyncedRoom], event_filter: RoomEventFilter
) -> Sequence[StoredEvent]:
    """The events by which it ended with rooms that the reader was never in; they may stand in no stream of a room."""
    nids = [room.event_nid for room in rooms if not room.was_seen]
    return [event for event in await list_events(conn, nids) if passes(event_filter, event)]


def passes(event_filter: RoomEventFilter, event: StoredEvent) -> bool:
    """Whether a filter lets an event through, as far as the event itself can tell."""
    content = {} if event_filter.contains_url is None else orjson.loads(event.client_json)["content"]
    return event_filter.matches_in_room(
        event_type=event.type, sender=event.sender, room_id=event.room_id, content=content
    )


def _span(room: SyncedRoom, window: SyncWindow) -> TimelineSpan:
    return TimelineSpan(
        room_nid=room.room_nid,
        since=0 if room.is_new and room.was_seen else window.since,
        upto=window.upto,
        before_event_nid=_EVENT_NID_MAX if room.is_joined or not room.event_nid else room.event_nid + 1,
    )


def _timeline(
    newest_first: Sequence[StoredEvent], memberships: Mapping[EventId, str], *, limit: int, has_more: bool
) -> Timeline:
    kept = _after_last_gap(newest_first[:limit])
    first = kept[-1] if kept else newest_first[0]
    # With a limit of 0 nothing is shown, and the past begins behind the newest event.
    boundary = first.event_nid - 1 if kept else first.event_nid
    return Timeline(
        events=tuple(reversed(kept)),
        limited=has_more or len(newest_first) > len(kept),
        prev_batch=HistoryToken(topological=first.topological or 0, event_nid=boundary),
        memberships={event.event_id: memberships[event.event_id] for event in kept},
    )


async def _behind_gaps(conn: Connection, built: Mapping[int, Timeline], window: SyncWindow) -> Sequence[int]:
    """Those rooms (`room_nid`) whose timelines begin behind a gap that the client does not know of yet."""
    first = {
        room_nid: timeline.events[0].topological
        for room_nid, timeline in built.items()
        if timeline.events and not timeline.limited
    }
    # Nowhere else can there have been a gap, so that few syncs have to ask.
    suspects = {room_nid: place for room_nid, place in first.items() if place is not None and place >= GAP}
    if not suspects:
        return ()
    known = await timelines.list_last_places(conn, suspects, position=window.since)
    return [room_nid for room_nid, place in known.items() if suspects[room_nid] - place >= GAP]


def _after_last_gap(newest_first: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
    """Those of some events between which nothing is missing; for what precedes a gap, clients have to ask."""
    for index in range(1, len(newest_first)):
        newer, older = newest_first[index - 1].topological, newest_first[index].topological
        if newer is not None and older is not None and newer - older >= GAP:
            return newest_first[:index]
    return newest_first
