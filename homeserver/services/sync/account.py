"""What a sync tells beside rooms and messages: account data, presence, and changed device lists.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from collections.abc import Collection, Sequence
from typing import Any

import orjson

from homeserver.core.ids import UserId
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.push.rules import PushRules
from homeserver.services.sync.membership import SyncedRooms
from homeserver.services.sync.request import SyncRequest, SyncWindow
from storage import account_data
from storage.database import Connection
from storage.device_streams import list_changed_device_lists
from storage.timelines import list_newcomers


class AccountSections:
    """Builds the members of a response that belong to no room."""

    def __init__(self, *, presence: Presence, push_rules: PushRules) -> None:
        self._presence = presence
        self._push_rules = push_rules

    async def build(
        self,
        conn: Connection,
        request: SyncRequest,
        window: SyncWindow,
        rooms: SyncedRooms,
        *,
        ignored_users: frozenset[UserId],
    ) -> dict[str, Any]:
        """The members that have something in them."""
        body: dict[str, Any] = {}
        data = await self._account_data(conn, request, window)
        if data:
            body["account_data"] = {"events": data}
        newcomers = await _newcomers(conn, request, window, rooms)
        presence = await self._presence_events(conn, request, window, newcomers, ignored_users)
        if presence:
            body["presence"] = {"events": presence}
        changed = await self._device_lists(conn, request, window)
        if changed:
            body["device_lists"] = {"changed": changed, "left": []}
        return body

    async def _account_data(self, conn: Connection, request: SyncRequest, window: SyncWindow) -> list[Any]:
        user_id = request.requester.user_id
        event_filter = request.filter.account_data
        events: list[Any] = [
            {"type": row.type, "content": orjson.Fragment(row.content)}
            for row in await account_data.list_changed(conn, user_id, since=window.since, upto=window.upto)
            if row.room_id is None and event_filter.matches(event_type=row.type, sender=user_id)
        ]
        if event_filter.matches(event_type="m.push_rules", sender=user_id):
            rules = await self._push_rules.changed(conn, user_id, since=window.since, upto=window.upto)
            if rules is not None:
                events.append({"type": "m.push_rules", "content": rules})
        return events

    async def _presence_events(
        self,
        conn: Connection,
        request: SyncRequest,
        window: SyncWindow,
        newcomers: Collection[UserId],
        ignored_users: frozenset[UserId],
    ) -> Sequence[Any]:
        """Presence that changed, and that of people whom the user has only now begun to share a room with."""
        events = await self._presence.changed(
            conn, request.requester.user_id, since=window.since, upto=window.upto, newcomers=newcomers
        )
        return [
            event
            for event in events
            if event["sender"] not in ignored_users
            and request.filter.presence.matches(event_type="m.presence", sender=event["sender"])
        ]

    async def _device_lists(self, conn: Connection, request: SyncRequest, window: SyncWindow) -> Sequence[UserId]:
        if window.is_initial:
            return ()
        return await list_changed_device_lists(conn, request.requester.user_id, since=window.since, upto=window.upto)


async def _newcomers(
    conn: Connection, request: SyncRequest, window: SyncWindow, rooms: SyncedRooms
) -> Collection[UserId]:
    """The members of rooms that the user has just joined, and those who have just joined the user's other rooms."""
    if window.is_initial:
        return ()
    entered = [room.room_nid for room in rooms.joined if room.is_new]
    stayed = [room.room_nid for room in rooms.joined if not room.is_new]
    return await list_newcomers(
        conn, request.requester.user_id, entered=entered, stayed=stayed, since=window.since, upto=window.upto
    )
