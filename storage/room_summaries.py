"""What lists of rooms show of a room, kept beside its current state."""

from dataclasses import dataclass

from homeserver.core.ids import RoomId
from storage.database import Row


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
