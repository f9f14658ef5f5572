"""When the history visibility of rooms, and a user's membership in them, has changed, in the order of their history.

https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.ids import UserId
from homeserver.core.visibility import HistoryVisibility
from storage.database import Connection
from storage.events import list_events


@dataclass(frozen=True, slots=True)
class VisibilityChanges:
    """The changes of one room: where in the topological order, and to what; the earliest first.

    Attributes:
        visibilities: the history visibility.
        memberships: the membership of the user who is asked about.
    """

    visibilities: list[tuple[int, HistoryVisibility]] = field(default_factory=list)
    memberships: list[tuple[int, str]] = field(default_factory=list)


SELECT_VISIBILITY_EVENTS: Final = """
    SELECT event_nid FROM events
    WHERE room_nid = ANY ($1::integer[]) AND type = 'm.room.history_visibility' AND state_key = ''
        AND topological IS NOT NULL
"""
SELECT_MEMBERSHIPS: Final = """
    SELECT c.room_nid, e.topological, c.membership
    FROM membership_changes c JOIN events e USING (event_nid)
    WHERE c.user_id = $1 AND c.room_nid = ANY ($2::integer[]) AND e.topological IS NOT NULL
    ORDER BY e.topological, e.event_nid
"""


async def list_visibility_changes(
    conn: Connection, room_nids: Collection[int], *, user_id: UserId
) -> dict[int, VisibilityChanges]:
    """The changes of rooms, by `room_nid`, for a user of this server."""
    rooms = {room_nid: VisibilityChanges() for room_nid in room_nids}
    nids = [row["event_nid"] for row in await conn.fetch(SELECT_VISIBILITY_EVENTS, list(room_nids))]
    events = [event for event in await list_events(conn, nids) if event.topological is not None]
    for event in sorted(events, key=lambda event: (event.topological, event.event_nid)):
        visibility = HistoryVisibility.of_content(event.content)
        rooms[event.room_nid].visibilities.append((event.topological or 0, visibility))
    for row in await conn.fetch(SELECT_MEMBERSHIPS, user_id, list(room_nids)):
        rooms[row["room_nid"]].memberships.append((row["topological"], row["membership"]))
    return rooms
