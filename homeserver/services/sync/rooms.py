"""The `rooms` member of a sync response: joined, invited, knocked and left rooms.

Each kind of data is read for all rooms at once and then dealt out to the rooms.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_rooms
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from homeserver.core.filters import EventFormat
from homeserver.core.ids import UserId
from homeserver.core.tokens import SyncToken
from homeserver.services.push.counts import UnreadCounts
from homeserver.services.rooms.rendering import EventForm, EventRenderer
from homeserver.services.rooms.stripped_state import StrippedState
from homeserver.services.sync.ephemeral import read_ephemeral
from homeserver.services.sync.membership import SyncedRoom, SyncedRooms
from homeserver.services.sync.request import SyncRequest, SyncWindow
from homeserver.services.sync.state import StateSections
from homeserver.services.sync.summary import read_summaries, summary_json
from homeserver.services.sync.timeline import EMPTY_TIMELINE, Timeline, Timelines
from storage import account_data
from storage.database import Connection
from storage.events import StoredEvent
from storage.timelines import RoomSummary


@dataclass(slots=True)
class _RoomData:
    """What was read for the rooms of one response, by room_nid."""

    timelines: Mapping[int, Timeline]
    states: Mapping[int, Sequence[StoredEvent]]
    summaries: Mapping[int, RoomSummary] = field(default_factory=dict)
    ephemeral: Mapping[int, Sequence[Any]] = field(default_factory=dict)
    account_data: Mapping[int, Sequence[Any]] = field(default_factory=dict)
    rendered: Mapping[int, Any] = field(default_factory=dict)


class RoomSections:
    """Builds the rooms of a response."""

    def __init__(
        self,
        *,
        timelines: Timelines,
        states: StateSections,
        renderer: EventRenderer,
        stripped_state: StrippedState,
        unread_counts: UnreadCounts,
    ) -> None:
        self._timelines = timelines
        self._states = states
        self._renderer = renderer
        self._stripped_state = stripped_state
        self._unread_counts = unread_counts

    async def build(
        self,
        conn: Connection,
        request: SyncRequest,
        window: SyncWindow,
        rooms: SyncedRooms,
        *,
        ignored_users: frozenset[UserId],
    ) -> dict[str, Any]:
        """The sections that have a room in them."""
        data = await self._read(conn, request, window, rooms, ignored_users)
        sections = {
            "join": await self._joined(conn, request, rooms.joined, data, window),
            "invite": await self._offers(conn, request, rooms.invited, "invite_state"),
            "knock": await self._offers(conn, request, rooms.knocked, "knock_state"),
            "leave": {room.room_id: _room_body(request, window, room, data) for room in rooms.left},
        }
        return {name: section for name, section in sections.items() if section}

    async def _read(
        self,
        conn: Connection,
        request: SyncRequest,
        window: SyncWindow,
        rooms: SyncedRooms,
        ignored_users: frozenset[UserId],
    ) -> _RoomData:
        shown_rooms = [*rooms.joined, *rooms.left]
        timelines = await self._timelines.read(
            conn, request.requester, shown_rooms, window, request.filter.room.timeline, ignored_users=ignored_users
        )
        summaries = await read_summaries(conn, request.requester.user_id, rooms.joined, window)
        heroes = {room_nid: summary.heroes or () for room_nid, summary in summaries.items()}
        states = await self._states.read(conn, request, shown_rooms, window, timelines, heroes)
        data = _RoomData(timelines=timelines, states=states, summaries=summaries)
        data.ephemeral = await read_ephemeral(conn, request, rooms.joined, window, ignored_users=ignored_users)
        data.account_data = await _read_account_data(conn, request, shown_rooms, window)
        data.rendered = await self._render(conn, request, data)
        return data

    async def _render(self, conn: Connection, request: SyncRequest, data: _RoomData) -> Mapping[int, Any]:
        """All events of the response in the client's form, by event_nid; aggregations come with limited timelines."""
        form = EventForm(
            fields=request.filter.event_fields, federation=request.filter.event_format is EventFormat.FEDERATION
        )
        rendered: dict[int, Any] = {}
        shown = data.timelines.values()
        memberships = {key: value for timeline in shown for key, value in timeline.memberships.items()}
        states = [event for section in data.states.values() for event in section]
        for events, bundle in (
            (states, False),
            ([event for timeline in shown if not timeline.limited for event in timeline.events], False),
            ([event for timeline in shown if timeline.limited for event in timeline.events], True),
        ):
            bodies = await self._renderer.render(
                conn, events, request.requester, memberships=memberships, form=form, bundle=bundle
            )
            rendered |= {event.event_nid: body for event, body in zip(events, bodies, strict=True)}
        return rendered

    async def _joined(
        self,
        conn: Connection,
        request: SyncRequest,
        rooms: Sequence[SyncedRoom],
        data: _RoomData,
        window: SyncWindow,
    ) -> dict[str, Any]:
        told = [
            room
            for room in rooms
            if room.is_fresh
            or room.room_nid in data.timelines
            or room.room_nid in data.states
            or room.room_nid in data.ephemeral
            or room.room_nid in data.account_data
        ]
        counts = await self._unread_counts.of_rooms(conn, request.requester.user_id, [room.room_nid for room in told])
        bodies: dict[str, Any] = {}
        for room in told:
            body = _room_body(request, window, room, data)
            body["ephemeral"] = {"events": list(data.ephemeral.get(room.room_nid, ()))}
            if room.room_nid in data.summaries:
                body["summary"] = summary_json(data.summaries[room.room_nid])
            unread = counts.get(room.room_nid)
            if unread is not None:
                by_thread = request.filter.room.timeline.unread_thread_notifications
                body |= unread.json_by_thread() if by_thread else unread.json()
            bodies[room.room_id] = body
        return bodies

    async def _offers(
        self, conn: Connection, request: SyncRequest, rooms: Sequence[SyncedRoom], member: str
    ) -> dict[str, Any]:
        """Invited or knocked rooms with their stripped state."""
        if not rooms:
            return {}
        events = await self._stripped_state.of_rooms(
            conn, request.requester.user_id, {room.room_nid: room.event_nid for room in rooms}
        )
        return {room.room_id: {member: {"events": list(events[room.room_nid])}} for room in rooms}


async def _read_account_data(
    conn: Connection, request: SyncRequest, rooms: Sequence[SyncedRoom], window: SyncWindow
) -> Mapping[int, Sequence[Any]]:
    """The account data of rooms: what changed in the window, and all of it for rooms that are new to the client."""
    event_filter = request.filter.room.account_data
    nids = {room.room_id: room.room_nid for room in rooms if event_filter.allows_room(room.room_id)}
    user_id = request.requester.user_id
    fresh = [room.room_id for room in rooms if room.is_fresh]
    rows = await account_data.list_of_rooms(conn, user_id, room_ids=fresh, upto=window.upto) if fresh else []
    if not window.is_initial:
        told = set(fresh)
        changed = await account_data.list_changed(conn, user_id, since=window.since, upto=window.upto)
        rows += [row for row in changed if row.room_id is not None and row.room_id not in told]
    sections: dict[int, list[Any]] = {}
    for row in rows:
        if row.room_id in nids and event_filter.matches(event_type=row.type, sender=user_id):
            event = {"type": row.type, "content": orjson.Fragment(row.content)}
            sections.setdefault(nids[row.room_id], []).append(event)
    return sections


def _room_body(request: SyncRequest, window: SyncWindow, room: SyncedRoom, data: _RoomData) -> dict[str, Any]:
    """What joined and left rooms have in common."""
    timeline = data.timelines.get(room.room_nid, EMPTY_TIMELINE)
    # Of a room without news, all there is lies in the past.
    prev_batch = SyncToken(window.upto) if timeline.prev_batch is None else timeline.prev_batch
    return {
        "timeline": {
            "events": [data.rendered[event.event_nid] for event in timeline.events],
            "limited": timeline.limited,
            "prev_batch": prev_batch.format(),
        },
        "state_after" if request.use_state_after else "state": {
            "events": [data.rendered[event.event_nid] for event in data.states.get(room.room_nid, ())]
        },
        "account_data": {"events": list(data.account_data.get(room.room_nid, ()))},
    }
