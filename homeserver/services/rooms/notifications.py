"""The list of events that a user was notified of.

https://spec.matrix.org/v1.19/client-server-api/#listing-notifications
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.core.requester import Requester
from homeserver.core.tokens import NotificationToken
from homeserver.services.rooms.access import RoomAccess
from homeserver.services.rooms.rendering import EventRenderer
from storage.account_data import ignored_users
from storage.database import Connection, Database
from storage.events import StoredEvent, list_events
from storage.notifications import NotificationRow, list_highlights, list_notifications, list_read

_ROUNDS_MAX: Final = 5
_EVENT_NID_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Notification:
    """An event that notified a user.

    Attributes:
        actions: of the push rule that matched, ready to be encoded.
        event: the event, ready to be encoded.
        read: the user has read it.
        ts: when it was sent, in milliseconds since the epoch.
    """

    actions: Any
    event: Any
    read: bool
    room_id: RoomId
    ts: int


@dataclass(frozen=True, slots=True)
class NotificationList:
    """Some notifications, the newest first; `next_token` is where older ones begin, None if there are none."""

    notifications: Sequence[Notification]
    next_token: NotificationToken | None


class Notifications:
    """Lists the notifications of users."""

    def __init__(self, *, db: Database, access: RoomAccess, renderer: EventRenderer) -> None:
        self._db = db
        self._access = access
        self._renderer = renderer

    async def page(
        self, requester: Requester, *, from_token: NotificationToken | None, limit: int, only_highlights: bool
    ) -> NotificationList:
        """The events that notified a user and that the user may still see, not more than `limit`."""
        before: int | None = _EVENT_NID_MAX if from_token is None else from_token.event_nid
        actions: dict[int, str] = {}
        events: list[StoredEvent] = []
        memberships: dict[EventId, str] = {}
        read_page = list_highlights if only_highlights else list_notifications
        async with self._db.connection() as conn:
            for _ in range(_ROUNDS_MAX):
                if before is None or len(events) >= limit:
                    break
                page = await read_page(conn, requester.user_id, before=before, limit=limit - len(events))
                actions.update((row.event_nid, row.actions) for row in page.rows)
                seen, seen_memberships = await self._visible(conn, requester.user_id, page.rows)
                events.extend(seen)
                memberships.update(seen_memberships)
                before = page.rest
            read = await list_read(conn, requester.user_id, [event.event_nid for event in events])
            rendered = await self._renderer.render(conn, events, requester, memberships=memberships)
        notifications = [
            Notification(
                actions=orjson.Fragment(actions[event.event_nid]),
                event=body,
                read=event.event_nid in read,
                room_id=event.room_id,
                ts=event.origin_server_ts,
            )
            for event, body in zip(events, rendered, strict=True)
        ]
        return NotificationList(notifications, None if before is None else NotificationToken(before))

    async def _visible(
        self, conn: Connection, user_id: UserId, rows: Sequence[NotificationRow]
    ) -> tuple[Sequence[StoredEvent], Mapping[EventId, str]]:
        """The events that the user may see and that nobody sent whom the user ignores; the newest first.

        Invitations are for the invited to see, whatever the room's history visibility.
        """
        ignored = await ignored_users(conn, user_id)
        events = [
            event
            for event in await list_events(conn, [row.event_nid for row in rows])
            if event.redacted_by is None and event.sender not in ignored
        ]
        visible = await self._access.visible(conn, user_id, events)
        seen = {event.event_id for event in visible.events}
        shown = [event for event in events if event.event_id in seen or event.state_key == user_id]
        return list(reversed(shown)), visible.memberships
