"""What a sync tells beside rooms and messages: account data, presence, and changed device lists.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from collections.abc import Collection, Sequence
from typing import Any

import orjson

from homeserver.core.ids import UserId
from homeserver.services.e2ee.device_lists import read_device_lists
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.push.rules import PushRules
from homeserver.services.sync.recent import Changes
from homeserver.services.sync.request import SyncRequest, SyncWindow
from storage.account_data import AccountDataRow
from storage.database import Connection


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
        changes: Changes,
        account_data: Sequence[AccountDataRow],
        *,
        newcomers: Collection[UserId],
        ignored_users: Collection[UserId],
    ) -> dict[str, Any]:
        """The members that have something in them.

        Args:
            account_data: what has changed, of rooms too.
            newcomers: with whom the user has only now begun to share a room.
        """
        body: dict[str, Any] = {}
        data = await self._account_data(conn, request, window, changes, account_data)
        if data:
            body["account_data"] = {"events": data}
        if self.tells_presence(request) and (changes.presence or newcomers):
            presence = await self._presence_events(conn, request, window, newcomers, ignored_users)
            if presence:
                body["presence"] = {"events": presence}
        if not window.is_initial and (changes.device_lists or changes.user or changes.state):
            lists = await read_device_lists(
                conn,
                request.requester.user_id,
                since=window.since,
                upto=window.upto,
                has_moved=changes.user,
                active=changes.state,
            )
            if lists.changed or lists.left:
                body["device_lists"] = {"changed": list(lists.changed), "left": list(lists.left)}
        return body

    def tells_presence(self, request: SyncRequest) -> bool:
        """Whether presence is wanted at all."""
        return request.filter.presence.matches_type("m.presence")

    async def _account_data(
        self,
        conn: Connection,
        request: SyncRequest,
        window: SyncWindow,
        changes: Changes,
        rows: Sequence[AccountDataRow],
    ) -> Sequence[Any]:
        user_id = request.requester.user_id
        event_filter = request.filter.account_data
        events: list[Any] = [
            {"type": row.type, "content": orjson.Fragment(row.content)}
            for row in rows
            if row.room_id is None and event_filter.matches(event_type=row.type, sender=user_id)
        ]
        if changes.user and event_filter.matches(event_type="m.push_rules", sender=user_id):
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
        ignored_users: Collection[UserId],
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
