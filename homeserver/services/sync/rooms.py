"""The `rooms` member of a sync response: joined, invited, knocked and left rooms.

Each kind of data is read for all rooms at once and then dealt out to the rooms.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_rooms
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from homeserver.core.filters import EventFormat
from homeserver.core.ids import UserId
from homeserver.core.tokens import SyncToken
from homeserver.services.rooms.rendering import EventForm, EventRenderer
from homeserver.services.rooms.stripped_state import StrippedState
from homeserver.services.sync.ephemeral import read_ephemeral
from homeserver.services.sync.membership import SyncedRoom, SyncedRooms
from homeserver.services.sync.recent import Changes
from homeserver.services.sync.request import SyncRequest, SyncWindow
from homeserver.services.sync.state import StateSections
from homeserver.services.sync.timeline import Timeline, Timelines
from homeserver.services.sync.unread import UnreadInRooms
from storage.account_data import AccountDataRow, list_of_rooms
from storage.database import Connection
from storage.events import StoredEvent
from storage.timelines import RoomSummary, list_summaries


@dataclass(frozen=True, slots=True)
class BuiltRooms:
    """The rooms of a response.

    Attributes:
        sections: those that have a room in them.
        changed_members: members that changed in rooms that the client knows, each with the room's `room_nid`.
    """

    sections: Mapping[str, Any]
    changed_members: Sequence[tuple[int, UserId]]


@dataclass(slots=True)
class _RoomData:
    """What was read for the rooms of one response, by room_nid."""

    timelines: Mapping[int, Timeline]
    states: Mapping[int, Sequence[StoredEvent]] = field(default_factory=dict)
    summaries: Mapping[int, RoomSummary] = field(default_factory=dict)
    ephemeral: Mapping[int, Sequence[Any]] = field(default_factory=dict)
    account_data: Mapping[int, Sequence[Any]] = field(default_factory=dict)
    rendered: Mapping[int, Any] = field(default_factory=dict)
    changed_members: Sequence[tuple[int, UserId]] = ()


class RoomSections:
    """Builds the rooms of a response."""

    def __init__(
        self,
        *,
        timelines: Timelines,
        states: StateSections,
        renderer: EventRenderer,
        stripped_state: StrippedState,
        unread: UnreadInRooms,
    ) -> None:
        self._timelines = timelines
        self._states = states
        self._renderer = renderer
        self._stripped_state = stripped_state
        self._unread = unread

    async def build(
        self,
        conn: Connection,
        request: SyncRequest,
        window: SyncWindow,
        rooms: SyncedRooms,
        changes: Changes,
        account_data: Sequence[AccountDataRow],
        *,
        ignored_users: Collection[UserId],
    ) -> BuiltRooms:
        """The rooms; `account_data` is what has changed in the window."""
        data = await self._read(conn, request, window, rooms, changes, ignored_users)
        data.account_data = await _room_account_data(conn, request, [*rooms.joined, *rooms.left], window, account_data)
        data.rendered = await self._render(conn, request, data)
        sections = {
            "join": await self._joined(conn, request, rooms.joined, data, window),
            "invite": await self._offers(conn, request, rooms.invited, "invite_state"),
            "knock": await self._offers(conn, request, rooms.knocked, "knock_state"),
            "leave": {room.room_id: _room_body(request, window, room, data) for room in rooms.left},
        }
        return BuiltRooms({name: section for name, section in sections.items() if section}, data.changed_members)

    async def _read(
        self,
        conn: Connection,
        request: SyncRequest,
        window: SyncWindow,
        rooms: SyncedRooms,
        changes: Changes,
        ignored_users: Collection[UserId],
    ) -> _RoomData:
        user_id = request.requester.user_id
        shown_rooms = [*rooms.joined, *rooms.left]
        with_events = [room for room in rooms.joined if room.is_new or room.room_nid in changes.events]
        timelines = await self._timelines.read(
            conn,
            request.requester,
            [*with_events, *rooms.left],
            window,
            request.filter.room.timeline,
            ignored_users=ignored_users,
        )
        states = await self._states.compare(conn, request, shown_rooms, window, timelines, changed=changes.state)
        renamed = [room.room_nid for room in states.renamed(rooms.joined)]
        summaries = await list_summaries(conn, user_id, renamed)
        heroes = {room_nid: summary.heroes or () for room_nid, summary in summaries.items()}
        return _RoomData(
            timelines=timelines,
            states=await self._states.read(conn, request, shown_rooms, window, timelines, states, heroes),
            summaries=summaries,
            ephemeral=await read_ephemeral(conn, request, rooms.joined, window, changes, ignored_users=ignored_users),
            changed_members=states.changed_members(rooms.joined),
        )

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
        counts = await self._unread.of_rooms(conn, request.requester.user_id, [room.room_nid for room in told])
        bodies: dict[str, Any] = {}
        for room in told:
            body = _room_body(request, window, room, data)
            body["ephemeral"] = {"events": list(data.ephemeral.get(room.room_nid, ()))}
            if room.room_nid in data.summaries:
                body["summary"] = _summary(data.summaries[room.room_nid])
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


async def _room_account_data(
    conn: Connection,
    request: SyncRequest,
    rooms: Sequence[SyncedRoom],
    window: SyncWindow,
    changed: Sequence[AccountDataRow],
) -> Mapping[int, Sequence[Any]]:
    """The account data of rooms: what changed in the window, and all of it for rooms that are new to the client."""
    event_filter = request.filter.room.account_data
    nids = {room.room_id: room.room_nid for room in rooms if event_filter.allows_room(room.room_id)}
    user_id = request.requester.user_id
    rows = changed
    fresh = [room.room_id for room in rooms if room.is_fresh and room.room_id in nids]
    if fresh and not window.is_initial:
        told = set(fresh)
        rows = [row for row in changed if row.room_id not in told]
        rows += await list_of_rooms(conn, user_id, room_ids=fresh, upto=window.upto)
    sections: dict[int, list[Any]] = {}
    for row in rows:
        if row.room_id in nids and event_filter.matches(event_type=row.type, sender=user_id):
            event = {"type": row.type, "content": orjson.Fragment(row.content)}
            sections.setdefault(nids[row.room_id], []).append(event)
    return sections


def _summary(summary: RoomSummary) -> dict[str, Any]:
    """A summary as clients read it. It is as of now, maybe later than the rest; then the next sync tells it again."""
    body: dict[str, Any] = {
        "m.joined_member_count": summary.joined_members,
        "m.invited_member_count": summary.invited_members,
    }
    if summary.heroes is not None:
        body["m.heroes"] = list(summary.heroes)
    return body


def _room_body(request: SyncRequest, window: SyncWindow, room: SyncedRoom, data: _RoomData) -> dict[str, Any]:
    """What joined and left rooms have in common."""
    # Of a room without news, all there is lies in the past.
    nothing = Timeline(events=(), limited=False, prev_batch=SyncToken(window.upto))
    timeline = data.timelines.get(room.room_nid, nothing)
    return {
        "timeline": {
            "events": [data.rendered[event.event_nid] for event in timeline.events],
            "limited": timeline.limited,
            "prev_batch": timeline.prev_batch.format(),
        },
        request.state_member.value: {
            "events": [data.rendered[event.event_nid] for event in data.states.get(room.room_nid, ())]
        },
        "account_data": {"events": list(data.account_data.get(room.room_nid, ()))},
    }
