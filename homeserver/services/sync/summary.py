"""The summaries of rooms in a sync: how many members a room has, and who can name it.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from homeserver.core.ids import UserId
from homeserver.services.sync.membership import SyncedRoom
from homeserver.services.sync.request import SyncWindow
from storage import timelines
from storage.database import Connection
from storage.timelines import RoomSummary

_NAMING: Final = frozenset({"m.room.member", "m.room.name", "m.room.canonical_alias"})


async def read_summaries(
    conn: Connection,
    user_id: UserId,
    rooms: Sequence[SyncedRoom],
    window: SyncWindow,
) -> Mapping[int, RoomSummary]:
    """The summaries of those joined rooms whose members or names may have changed in the window, by room_nid."""
    fresh = [room.room_nid for room in rooms if room.membership == "join" and room.is_fresh]
    stale = [room.room_nid for room in rooms if room.membership == "join" and not room.is_fresh]
    changed = set(await timelines.rooms_with_state_changes(conn, stale, since=window.since, types=list(_NAMING)))
    return await timelines.list_summaries(conn, user_id, [*fresh, *changed])


def summary_json(summary: RoomSummary) -> dict[str, Any]:
    """A summary as clients read it."""
    body: dict[str, Any] = {
        "m.joined_member_count": summary.joined_members,
        "m.invited_member_count": summary.invited_members,
    }
    if summary.heroes is not None:
        body["m.heroes"] = list(summary.heroes)
    return body
