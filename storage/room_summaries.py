"""What lists of rooms show of a room, kept beside its current state."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import RoomId
from storage.database import Connection, Row


@dataclass(frozen=True, slots=True)
class RoomSummaryRow:
    """A room in short; None for what its state does not say.

    Attributes:
        local_joined_members: how many of the joined members are users of this server.
    """

    room_nid: int
    room_id: RoomId
    room_version: str
    name: str | None
    topic: str | None
    avatar_url: str | None
    canonical_alias: str | None
    join_rule: str | None
    history_visibility: str | None
    guest_access: str | None
    room_type: str | None
    encryption: str | None
    joined_members: int
    invited_members: int
    local_joined_members: int


def room_summary(row: Row) -> RoomSummaryRow:
    """Reads a row of room_summaries joined with rooms."""
    return RoomSummaryRow(
        room_nid=row["room_nid"],
        room_id=RoomId(row["room_id"]),
        room_version=row["room_version"],
        name=row["name"],
        topic=row["topic"],
        avatar_url=row["avatar_url"],
        canonical_alias=row["canonical_alias"],
        join_rule=row["join_rule"],
        history_visibility=row["history_visibility"],
        guest_access=row["guest_access"],
        room_type=row["room_type"],
        encryption=row["encryption"],
        joined_members=row["joined_members"],
        invited_members=row["invited_members"],
        local_joined_members=row["local_joined_members"],
    )


SELECT_SUMMARIES: Final = """
    SELECT r.room_id, r.room_version, s.* FROM room_summaries s JOIN rooms r USING (room_nid)
    WHERE s.room_nid = ANY ($1::integer[])
"""


async def list_summaries(conn: Connection, room_nids: Collection[int]) -> dict[int, RoomSummaryRow]:
    """The summaries of rooms by `room_nid`; unknown rooms are absent."""
    return {row["room_nid"]: room_summary(row) for row in await conn.fetch(SELECT_SUMMARIES, list(room_nids))}


SELECT_SUMMARY: Final = """
    SELECT r.room_id, r.room_version, s.* FROM room_summaries s JOIN rooms r USING (room_nid) WHERE r.room_id = $1
"""


async def find_summary(conn: Connection, room_id: RoomId) -> RoomSummaryRow | None:
    """The summary of a room; None if this server does not know it."""
    row = await conn.fetchrow(SELECT_SUMMARY, room_id)
    return None if row is None else room_summary(row)
