"""The newest events of rooms, with what they do for each member: what a process remembers to serve those who follow."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import UserId
from storage.database import Connection
from storage.events import EVENT_COLUMNS, StoredEvent, stored_event

EXCEPTIONS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class RecentEvent:
    """An event, and the members for whom it does something else than by default: whether it notifies, and highlights.

    `exceptions` is None if these are very many.
    """

    event: StoredEvent
    exceptions: Mapping[UserId, tuple[bool, bool]] | None


SELECT_RECENT_EVENTS: Final = f"""
    SELECT {EVENT_COLUMNS}, x.users, x.notify, x.highlight
    FROM events
    CROSS JOIN LATERAL (
        SELECT array_agg(o.user_id) AS users, array_agg(o.notify) AS notify, array_agg(o.highlight) AS highlight
        FROM (
            SELECT e.user_id, e.notify, e.highlight FROM event_push_exceptions e
            WHERE e.event_nid = events.event_nid AND e.actions IS NOT NULL
            LIMIT $4
        ) AS o
    ) AS x
    WHERE events.room_nid = ANY ($1::integer[]) AND events.position >= $2 AND events.position < $3
    ORDER BY events.position, events.event_nid
    LIMIT $5
"""  # noqa: S608 - a constant list of columns


async def list_recent_events(
    conn: Connection, room_nids: Collection[int], *, since: int, upto: int, limit: int
) -> list[RecentEvent]:
    """The events of some rooms from `since` on and before `upto`, in the order of the stream, the first `limit`."""
    rows = await conn.fetch(SELECT_RECENT_EVENTS, list(room_nids), since, upto, EXCEPTIONS_MAX + 1, limit)
    found = []
    for row in rows:
        users = row["users"] or ()
        exceptions = (
            dict(zip(map(UserId, users), zip(row["notify"], row["highlight"], strict=True), strict=True))
            if users
            else {}
        )
        found.append(RecentEvent(stored_event(row), exceptions if len(users) <= EXCEPTIONS_MAX else None))
    return found
