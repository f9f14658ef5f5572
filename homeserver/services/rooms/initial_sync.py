"""Snapshots of rooms, as clients before `/sync` began with, and as those begin who look into a room without joining it.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from homeserver.core.filters import RoomEventFilter
from homeserver.core.ids import RoomId
from homeserver.core.requester import Requester
from homeserver.core.tokens import SyncToken
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.rooms.access import ReadableRoom, RoomAccess
from homeserver.services.rooms.old_events import old_presence_event, old_room_event, receipt_events
from homeserver.services.rooms.rendering import EventRenderer
from homeserver.services.stream.hub import Hub
from storage import account_data
from storage.database import Connection, Database
from storage.events import StoredEvent, list_events
from storage.history import before
from storage.memberships import MembershipRow, list_departures, list_rooms_of_user
from storage.public_rooms import list_published
from storage.receipts import list_changed_receipts
from storage.rooms import list_rooms
from storage.state import StateStore
from storage.timelines import TimelineSpan, list_timelines

_RECEIPTS_PER_ROOM_MAX: Final = 1000
_EVENT_NID_MAX: Final = 2**63 - 1
_ANY: Final = RoomEventFilter()


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A room that is told: up to where, and with which state.

    Attributes:
        departure: the event by which the user left; None if it sees the room as it is now.
        state_id: the snapshot of the state, or that before the departure.
    """

    room_nid: int
    room_id: RoomId
    membership: str | None
    departure: StoredEvent | None
    state_id: int


class InitialSync:
    """Serves `/initialSync` and `/rooms/{roomId}/initialSync`, with a fixed number of statements for all rooms."""

    def __init__(
        self,
        *,
        db: Database,
        hub: Hub,
        access: RoomAccess,
        renderer: EventRenderer,
        states: StateStore,
        presence: Presence,
    ) -> None:
        self._db = db
        self._hub = hub
        self._access = access
        self._renderer = renderer
        self._states = states
        self._presence = presence

    async def of_room(self, requester: Requester, room_id: RoomId, *, limit: int) -> Mapping[str, Any]:
        """One room, in the form of the client-server API; `limit` is how many messages at most.

        Raises:
            Forbidden: the user may not read the room.
        """
        upto = await self._hub.bound()
        async with self._db.connection() as conn:
            readable = await self._access.require_readable(conn, requester.user_id, room_id)
            snapshot = _snapshot(readable)
            body = (await self._rooms(conn, requester, [snapshot], limit=limit, upto=upto))[0]
            body["presence"], body["receipts"] = [], []
            if readable.departure is None:
                presence = await self._presence.in_room(conn, snapshot.room_nid, since=0, upto=upto)
                body["presence"] = [old_presence_event(event) for event in presence]
                body["receipts"] = await self._receipts(conn, requester, {snapshot.room_nid: room_id}, upto)
        return body

    async def of_user(self, requester: Requester, *, limit: int, archived: bool) -> Mapping[str, Any]:
        """All rooms of a user, in the form of the client-server API.

        Args:
            requester: the user.
            limit: how many messages of each room at most.
            archived: whether rooms count that the user has left.
        """
        upto = await self._hub.bound()
        async with self._db.connection() as conn:
            wanted = ("join", "invite", "leave", "ban") if archived else ("join", "invite")
            rows = await list_rooms_of_user(conn, requester.user_id, wanted)
            invites = [row for row in rows if row.membership == "invite"]
            snapshots = await self._snapshots(conn, requester, [row for row in rows if row.membership != "invite"])
            rooms = await self._rooms(conn, requester, snapshots, limit=limit, upto=upto)
            rooms += await self._invites(conn, requester, invites)
            joined = {each.room_nid: each.room_id for each in snapshots if each.membership == "join"}
            presence = await self._presence.changed(conn, requester.user_id, since=0, upto=upto)
            return {
                "end": SyncToken(upto).format(),
                "rooms": rooms,
                "presence": [old_presence_event(event) for event in presence],
                "receipts": await self._receipts(conn, requester, joined, upto),
                "account_data": [
                    {"type": row.type, "content": orjson.Fragment(row.content)}
                    for row in await account_data.list_changed(conn, requester.user_id, since=0, upto=upto)
                    if row.room_id is None
                ],
            }

    async def _snapshots(
        self, conn: Connection, requester: Requester, rows: Sequence[MembershipRow]
    ) -> list[_Snapshot]:
        """The rooms that the user is in, and those where it was and that it has not forgotten."""
        left = [row for row in rows if row.membership != "join" and not row.forgotten]
        departed = await list_departures(conn, requester.user_id, [row.room_nid for row in left]) if left else {}
        departures = {event.room_nid: event for event in await list_events(conn, departed.values())}
        joined = [row for row in rows if row.membership == "join"]
        current = {room.room_nid: room.state_id for room in await list_rooms(conn, [row.room_nid for row in joined])}
        snapshots = []
        for row in (*joined, *left):
            departure = departures.get(row.room_nid) if row.membership != "join" else None
            state_id = current.get(row.room_nid) if departure is None else departure.state_id
            if state_id is not None:
                snapshots.append(_Snapshot(row.room_nid, row.room_id, row.membership, departure, state_id))
        return snapshots

    async def _rooms(
        self, conn: Connection, requester: Requester, snapshots: Sequence[_Snapshot], *, limit: int, upto: int
    ) -> list[dict[str, Any]]:
        """The rooms with messages, state and account data."""
        messages = await self._messages(conn, requester, snapshots, limit=limit, upto=upto)
        states = await self._state_events(conn, snapshots)
        room_ids = [each.room_id for each in snapshots]
        published = await list_published(conn, room_ids)
        data: dict[RoomId | None, list[Any]] = {}
        for row in await account_data.list_of_rooms(conn, requester.user_id, room_ids=room_ids, upto=upto):
            data.setdefault(row.room_id, []).append({"type": row.type, "content": orjson.Fragment(row.content)})
        bodies = []
        for each in snapshots:
            rendered = await self._renderer.render(conn, states.get(each.room_nid, ()), requester, bundle=False)
            body: dict[str, Any] = {
                "room_id": each.room_id,
                "messages": messages[each.room_nid],
                "state": [old_room_event(event) for event in rendered],
                "visibility": "public" if each.room_id in published else "private",
                "account_data": data.get(each.room_id, []),
            }
            if each.membership is not None:
                body["membership"] = each.membership
            bodies.append(body)
        return bodies

    async def _messages(
        self, conn: Connection, requester: Requester, snapshots: Sequence[_Snapshot], *, limit: int, upto: int
    ) -> Mapping[int, Mapping[str, Any]]:
        """The last messages of each room that the user sees."""
        ignored = await account_data.ignored_users(conn, requester.user_id)
        spans = [TimelineSpan(each.room_nid, 0, upto, _end_of(each)) for each in snapshots]
        pages = await list_timelines(conn, spans, event_filter=_ANY, limit=limit) if limit else {}
        events = [
            event
            for page in pages.values()
            for event in page
            if event.state_key is not None or event.sender not in ignored
        ]
        visible = await self._access.visible(conn, requester.user_id, events)
        rendered = await self._renderer.render(
            conn, visible.events, requester, memberships=visible.memberships, bundle=False
        )
        chunks: dict[int, list[Any]] = {each.room_nid: [] for each in snapshots}
        starts: dict[int, str] = {}
        for event, body in zip(visible.events, rendered, strict=True):
            chunks[event.room_nid].insert(0, old_room_event(body))
            starts[event.room_nid] = before(event).format()
        end = SyncToken(upto).format()
        return {
            room_nid: {"start": starts.get(room_nid, end), "end": end, "chunk": chunk}
            for room_nid, chunk in chunks.items()
        }

    async def _state_events(
        self, conn: Connection, snapshots: Sequence[_Snapshot]
    ) -> Mapping[int, Sequence[StoredEvent]]:
        """The state of each room; a departure takes its place in it."""
        states = await self._states.load_many(conn, {each.state_id for each in snapshots})
        nids = {event_nid for state in states.values() for event_nid in state.entries().values()}
        by_room: dict[int, dict[tuple[str, str | None], StoredEvent]] = {}
        departures = [each.departure for each in snapshots if each.departure is not None]
        for event in [*await list_events(conn, nids), *departures]:
            by_room.setdefault(event.room_nid, {})[(event.type, event.state_key)] = event
        return {room_nid: list(events.values()) for room_nid, events in by_room.items()}

    async def _invites(
        self, conn: Connection, requester: Requester, rows: Sequence[MembershipRow]
    ) -> list[dict[str, Any]]:
        """The rooms that the user is invited to, but for those by users whom it ignores."""
        ignored = await account_data.ignored_users(conn, requester.user_id)
        wanted = {row.event_nid: row for row in rows if row.sender not in ignored}
        events = await list_events(conn, wanted)
        rendered = await self._renderer.render(conn, events, requester, bundle=False)
        return [
            {
                "room_id": event.room_id,
                "membership": "invite",
                "inviter": event.sender,
                "invite": old_room_event(body),
            }
            for event, body in zip(events, rendered, strict=True)
        ]

    async def _receipts(
        self, conn: Connection, requester: Requester, rooms: Mapping[int, RoomId], upto: int
    ) -> list[dict[str, Any]]:
        rows = await list_changed_receipts(
            conn, rooms, since=0, upto=upto, user_id=requester.user_id, limit_per_room=_RECEIPTS_PER_ROOM_MAX
        )
        return receipt_events(rows, rooms)


def _snapshot(readable: ReadableRoom) -> _Snapshot:
    room = readable.room
    return _Snapshot(room.room_nid, room.room_id, readable.membership, readable.departure, readable.state_id)


def _end_of(snapshot: _Snapshot) -> int:
    return _EVENT_NID_MAX if snapshot.departure is None else snapshot.departure.event_nid + 1
