"""How many events of a room a user has not read and is notified of.

A user has read a thread (the main timeline is one) up to the furthest of: the event of joining, a receipt that regards
no threads, a receipt for the thread, and the last event that the user has sent into it.

For the main timeline the counts are differences of running totals, so they cost the same however much is unread; see
`migrations/0005_push.up.sql`. Events of threads are counted singly, the newest thousand of a room.

https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import EventId, UserId
from storage.database import Connection

SELECT_UNREAD_COUNTS: Final = "SELECT room_nid, thread_root, notify, highlight, newest_nid FROM unread_counts($1, $2)"


@dataclass(frozen=True, slots=True)
class UnreadRow:
    """What is unread of one thread of a room.

    Attributes:
        thread_root: None for the main timeline.
        newest_nid: the newest event that is counted, of whatever thread; of the main timeline only.
    """

    room_nid: int
    thread_root: EventId | None
    notification_count: int
    highlight_count: int
    newest_nid: int | None


async def list_unread_counts(conn: Connection, user_id: UserId, room_nids: Collection[int]) -> list[UnreadRow]:
    """What a user has not read of those of some rooms that it is joined to.

    The main timeline of each such room is among the rows, even if nothing is unread; of threads only some that have
    unread events.
    """
    return [
        UnreadRow(
            room_nid=row["room_nid"],
            thread_root=None if row["thread_root"] is None else EventId(row["thread_root"]),
            notification_count=max(0, row["notify"]),
            highlight_count=max(0, row["highlight"]),
            newest_nid=row["newest_nid"],
        )
        for row in await conn.fetch(SELECT_UNREAD_COUNTS, user_id, list(room_nids))
    ]
