"""Which rooms those may find who look for rooms, and what they are told of them.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

import orjson

from homeserver.core.errors import InvalidParam
from homeserver.core.ids import RoomId, UserId
from homeserver.core.room_versions import RoomVersion, room_version_named
from storage.database import Connection
from storage.discovery import FoundRoom, find_rooms, list_joined_among
from storage.room_summaries import RoomSummaryRow

_CONDITIONS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class DiscoveredRoom:
    """A room that a user may know of.

    Attributes:
        membership: the user's; None if it has none.
        allowed_room_ids: the rooms whose members may join, if it is restricted.
    """

    summary: RoomSummaryRow
    membership: str | None
    allowed_room_ids: Sequence[str]

    def json(self) -> dict[str, Any]:
        """The room as a `RoomSummary` of the specification."""
        body = public_room_json(self.summary)
        body["room_version"] = self.summary.room_version
        if self.allowed_room_ids:
            body["allowed_room_ids"] = list(self.allowed_room_ids)
        if self.summary.encryption:
            body["encryption"] = self.summary.encryption
        return body


async def discover(
    conn: Connection, room_ids: Collection[RoomId], *, user_id: UserId | None
) -> Mapping[RoomId, DiscoveredRoom]:
    """Those of some rooms that a user may know of: it is in them, may join or ask for it, or everybody may read them.

    Args:
        conn: to read with.
        room_ids: the rooms; those that this server is not in are passed over.
        user_id: who looks; None for somebody without an account.
    """
    found = await find_rooms(conn, room_ids, user_id=user_id)
    allowed = {room_id: _allowed_room_ids(room) for room_id, room in found.items()}
    joined: set[str] = set()
    if user_id is not None:
        joined = await list_joined_among(conn, user_id, {each for rooms in allowed.values() for each in rooms})
    return {
        room_id: DiscoveredRoom(room.summary, room.membership, allowed[room_id])
        for room_id, room in found.items()
        if _may_find(room, meets_condition=not joined.isdisjoint(allowed[room_id]))
    }


def _may_find(room: FoundRoom, *, meets_condition: bool) -> bool:
    if room.summary.history_visibility == "world_readable" or room.membership in ("join", "invite"):
        return True
    if room.membership == "ban":
        return False
    version = room_version_named(room.summary.room_version)
    match room.summary.join_rule:
        case "public":
            return True
        case "knock":
            return version.knock_allowed
        case "knock_restricted":
            return version.knock_restricted_allowed
        case "restricted":
            return version.restricted_join_allowed and meets_condition
        case _:
            return False


def _allowed_room_ids(room: FoundRoom) -> Sequence[str]:
    """The rooms whose members may join a restricted room."""
    if room.join_rules is None or not _is_restricted(
        room.summary.join_rule, room_version_named(room.summary.room_version)
    ):
        return ()
    conditions = orjson.loads(room.join_rules)["content"].get("allow")
    if not isinstance(conditions, list):
        return ()
    named = (
        condition.get("room_id")
        for condition in conditions[:_CONDITIONS_MAX]
        if isinstance(condition, dict) and condition.get("type") == "m.room_membership"
    )
    return list(dict.fromkeys(room_id for room_id in named if is_room_id(room_id)))


def is_room_id(value: object) -> TypeGuard[str]:
    """Whether something is a room id."""
    try:
        RoomId.parse(value)
    except InvalidParam:
        return False
    return True


def _is_restricted(join_rule: str | None, version: RoomVersion) -> bool:
    if join_rule == "restricted":
        return version.restricted_join_allowed
    return join_rule == "knock_restricted" and version.knock_restricted_allowed


def public_room_json(summary: RoomSummaryRow) -> dict[str, Any]:
    """A room as a `PublishedRoomsChunk` of the specification."""
    body: dict[str, Any] = {
        "room_id": summary.room_id,
        "num_joined_members": summary.joined_members,
        "world_readable": summary.history_visibility == "world_readable",
        "guest_can_join": summary.guest_access == "can_join",
        "join_rule": summary.join_rule or "invite",
    }
    optional = {
        "name": summary.name,
        "topic": summary.topic,
        "avatar_url": summary.avatar_url,
        "canonical_alias": summary.canonical_alias,
        "room_type": summary.room_type,
    }
    return body | {name: value for name, value in optional.items() if value}
