"""Unread notifications, as syncs tell them: of a whole room, or of each of its threads.

https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from homeserver.core.ids import EventId, UserId
from storage.database import Connection
from storage.unread_counts import list_unread_counts


@dataclass(frozen=True, slots=True)
class NotificationCounts:
    """How many events notify a user, and how many of them are highlighted."""

    notification_count: int = 0
    highlight_count: int = 0

    def __add__(self, other: "NotificationCounts") -> "NotificationCounts":
        """The sum."""
        return NotificationCounts(
            self.notification_count + other.notification_count, self.highlight_count + other.highlight_count
        )

    def json(self) -> dict[str, int]:
        """The counts as clients read them."""
        return {"highlight_count": self.highlight_count, "notification_count": self.notification_count}


_NONE: Final = NotificationCounts()


@dataclass(frozen=True, slots=True)
class UnreadCount:
    """What a user has not read of a room.

    Attributes:
        main: of the main timeline.
        threads: of the threads in which something is unread, by their roots.
    """

    main: NotificationCounts = _NONE
    threads: Mapping[EventId, NotificationCounts] = field(default_factory=dict)

    @property
    def total(self) -> NotificationCounts:
        """The counts of the whole room."""
        return sum(self.threads.values(), start=self.main)

    def json(self) -> dict[str, Any]:
        """The members of a joined room in a sync response that tell the counts of the whole room."""
        return {"unread_notifications": self.total.json()}

    def json_by_thread(self) -> dict[str, Any]:
        """The same for clients that ask for `unread_thread_notifications`."""
        body: dict[str, Any] = {"unread_notifications": self.main.json()}
        if self.threads:
            body["unread_thread_notifications"] = {root: counts.json() for root, counts in self.threads.items()}
        return body


class UnreadCounts:
    """Counts what users have not read."""

    async def of_rooms(
        self, conn: Connection, user_id: UserId, room_nids: Sequence[int]
    ) -> Mapping[int, tuple[UnreadCount, int]]:
        """What a user has not read of those of some rooms that it is joined to, by `room_nid`, in one statement.

        With each comes the newest event (`event_nid`) that is counted; 0 if there is none.
        """
        if not room_nids:
            return {}
        mains: dict[int, tuple[NotificationCounts, int]] = {}
        threads: dict[int, dict[EventId, NotificationCounts]] = {}
        for row in await list_unread_counts(conn, user_id, room_nids):
            counts = NotificationCounts(row.notification_count, row.highlight_count)
            if row.thread_root is None:
                mains[row.room_nid] = counts, row.newest_nid or 0
            elif counts != _NONE:
                threads.setdefault(row.room_nid, {})[row.thread_root] = counts
        return {
            room_nid: (UnreadCount(main, threads.get(room_nid, {})), newest_nid)
            for room_nid, (main, newest_nid) in mains.items()
        }
