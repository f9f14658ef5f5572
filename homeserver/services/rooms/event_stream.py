"""Listening to single events: the way of clients before `/sync`, and of those who look into a room without joining it.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3events
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden, GuestAccessForbidden
from homeserver.core.ids import RoomId, UserId
from homeserver.core.requester import Requester
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.rooms.access import RoomAccess
from homeserver.services.rooms.old_events import old_presence_event, old_room_event, receipt_events
from homeserver.services.rooms.rendering import EventRenderer
from homeserver.services.stream.hub import Hub
from storage import account_data
from storage.database import Connection, Database
from storage.event_stream import list_streamed_events
from storage.events import list_events
from storage.memberships import list_rooms_of_user
from storage.receipts import list_changed_receipts
from storage.timelines import list_membership_changes
from storage.typing import typing_in

_RECEIPTS_PER_ROOM_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class StreamPage:
    """Events, ready to be encoded, between two positions of the stream."""

    start: int
    end: int
    chunk: Sequence[Any]


@dataclass(frozen=True, slots=True)
class _Listened:
    """The rooms that one listens to, by `room_nid`; `previewed` is the one that one looks into, if it is one."""

    rooms: Mapping[int, RoomId]
    previewed: int | None

    def keys(self, user_id: UserId) -> frozenset[str]:
        rooms = self.rooms.values()
        return frozenset(
            {f"user:{user_id}", *(f"{kind}:{room_id}" for room_id in rooms for kind in ("room", "presence"))}
        )


class EventStream:
    """Serves `/events`."""

    def __init__(
        self,
        *,
        db: Database,
        hub: Hub,
        clock: Clock,
        access: RoomAccess,
        renderer: EventRenderer,
        presence: Presence,
    ) -> None:
        self._db = db
        self._hub = hub
        self._clock = clock
        self._access = access
        self._renderer = renderer
        self._presence = presence

    async def listen(
        self, requester: Requester, *, room_id: RoomId | None, since: int | None, timeout_ms: int, limit: int
    ) -> StreamPage:
        """What is new in all of the user's rooms, or in one that it may read; waits for it.

        Args:
            requester: who listens.
            room_id: the one room; None for all that the user is in, and what belongs to no room.
            since: the position from which on; None for now.
            timeout_ms: how long to wait at most.
            limit: after how many events of rooms to stop.

        Raises:
            Forbidden: the user may not read the room as it is now.
            GuestAccessForbidden: guests listen to single rooms only.
        """
        if room_id is None and requester.is_guest:
            raise GuestAccessForbidden("Guests may listen to single rooms only")
        deadline = self._clock.monotonic() + timeout_ms / 1000
        start = position = await self._hub.bound() if since is None else since
        while True:
            async with self._db.connection() as conn:
                listened = await self._listened(conn, requester, room_id)
            with self._hub.subscribe(listened.keys(requester.user_id)) as waiter:
                upto = max(await self._hub.bound(), position)
                async with self._db.connection() as conn:
                    chunk, position = await self._read(conn, requester, listened, position, upto, limit)
                remaining = 0 if self._hub.is_stopping else deadline - self._clock.monotonic()
                if chunk or remaining <= 0:
                    return StreamPage(start, position, chunk)
                if position == upto:
                    await waiter.wait(remaining, upto=upto)

    async def _listened(self, conn: Connection, requester: Requester, room_id: RoomId | None) -> _Listened:
        if room_id is None:
            joined = await list_rooms_of_user(conn, requester.user_id, ("join",))
            return _Listened({row.room_nid: row.room_id for row in joined}, None)
        readable = await self._access.require_readable(conn, requester.user_id, room_id)
        if readable.departure is not None:
            raise Forbidden("You are not in the room")
        return _Listened({readable.room.room_nid: room_id}, readable.room.room_nid)

    async def _read(
        self, conn: Connection, requester: Requester, listened: _Listened, since: int, upto: int, limit: int
    ) -> tuple[list[Any], int]:
        """What is new, and the position up to which that is all."""
        rooms = dict(listened.rooms)
        ignored = await account_data.ignored_users(conn, requester.user_id)
        own: set[int] = set()
        if listened.previewed is None:
            changes = await list_membership_changes(conn, requester.user_id, since=since)
            own = {change.event_nid for change in changes if change.position < upto}
            rooms |= {event.room_nid: event.room_id for event in await list_events(conn, own)}
        events = await list_streamed_events(conn, rooms, since=since, upto=upto, limit=limit)
        if len(events) > limit:
            upto = (events[-1].position or 0) + 1
        heard = [event for event in events if event.state_key is not None or event.sender not in ignored]
        visible = await self._access.visible(conn, requester.user_id, heard)
        seen = {event.event_nid: event for event in visible.events}
        shown = [
            seen.get(event.event_nid, event) for event in heard if event.event_nid in seen or event.event_nid in own
        ]
        rendered = await self._renderer.render(conn, shown, requester, memberships=visible.memberships, bundle=False)
        chunk: list[Any] = [old_room_event(event) for event in rendered]
        chunk += await self._account_data(conn, requester, listened, since, upto)
        chunk += await self._ephemeral(conn, requester.user_id, listened, since, upto, ignored)
        return chunk, upto

    async def _account_data(
        self, conn: Connection, requester: Requester, listened: _Listened, since: int, upto: int
    ) -> list[Any]:
        rooms = set(listened.rooms.values())
        rows = await account_data.list_changed(conn, requester.user_id, since=since, upto=upto)
        events = []
        for row in rows:
            event = {"type": row.type, "content": orjson.Fragment(row.content)}
            if row.room_id in rooms:
                events.append({**event, "room_id": row.room_id})
            elif row.room_id is None and listened.previewed is None:
                events.append(event)
        return events

    async def _ephemeral(
        self,
        conn: Connection,
        user_id: UserId,
        listened: _Listened,
        since: int,
        upto: int,
        ignored: frozenset[UserId],
    ) -> list[Any]:
        if listened.previewed is None:
            presence = await self._presence.changed(conn, user_id, since=max(since, 1), upto=upto)
        else:
            presence = await self._presence.in_room(conn, listened.previewed, since=max(since, 1), upto=upto)
        events = [old_presence_event(event) for event in presence if event["sender"] not in ignored]
        rooms = listened.rooms
        receipts = await list_changed_receipts(
            conn, rooms, since=since, upto=upto, user_id=user_id, limit_per_room=_RECEIPTS_PER_ROOM_MAX
        )
        events += receipt_events([row for row in receipts if row.user_id not in ignored], rooms)
        for room_nid, typists in (await typing_in(conn, rooms, since=max(since, 1), upto=upto)).items():
            shown = [typist for typist in typists if typist not in ignored]
            events.append({"type": "m.typing", "room_id": rooms[room_nid], "content": {"user_ids": shown}})
        return events
