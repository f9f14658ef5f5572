"""Which rooms those may find who look for rooms, and what they are told of them.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

import orjson

from homeserver.core.errors import InvalidParam
from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.core.room_versions import RoomVersion, room_version_named
from storage.database import Connection
from storage.discovery import FoundRoom, find_rooms, list_joined_among
from storage.room_summaries import RoomSummaryRow
from storage.server_memberships import list_memberships_of_server

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


@dataclass(frozen=True, slots=True)
class Discovery:
    """Some rooms that this server is in, as somebody who looks for rooms may know of them.

    Attributes:
        found: those that it may know of.
        refused: the others.
    """

    found: Mapping[RoomId, DiscoveredRoom]
    refused: Collection[RoomId]


async def discover(conn: Connection, room_ids: Collection[RoomId], *, user_id: UserId | None) -> Discovery:
    """Finds those of some rooms that a user is in, may join or ask for, or that everybody may read.

    Args:
        conn: to read with.
        room_ids: the rooms; those that this server is not in are passed over.
        user_id: who looks; None for somebody without an account.
    """
    rooms = await find_rooms(conn, room_ids, user_id=user_id)
    conditions = {each for room in rooms.values() for each in _allowed_room_ids(room)}
    joined = set() if user_id is None else await list_joined_among(conn, user_id, conditions)
    memberships = {room_id: {room.membership} for room_id, room in rooms.items() if room.membership is not None}
    return _judge(rooms, memberships, joined)


async def discover_for_server(conn: Connection, room_ids: Collection[RoomId], *, server_name: ServerName) -> Discovery:
    """As `discover`, for another server: it may know of what any of its users may know of."""
    rooms = await find_rooms(conn, room_ids, user_id=None)
    conditions = {each for room in rooms.values() for each in _allowed_room_ids(room)}
    memberships = await list_memberships_of_server(conn, {*rooms, *conditions}, server_name)
    joined = {room_id for room_id, theirs in memberships.items() if "join" in theirs}
    # Of a server some users may be banned; others are not.
    return _judge(rooms, {room_id: theirs - {"ban"} for room_id, theirs in memberships.items()}, joined)


def _judge(
    rooms: Mapping[RoomId, FoundRoom], memberships: Mapping[RoomId, Collection[str]], joined: Collection[str]
) -> Discovery:
    """Tells apart which rooms may be known of, by the memberships in them and the rooms that are joined."""
    found = {}
    for room_id, room in rooms.items():
        allowed = _allowed_room_ids(room)
        meets_condition = any(each in joined for each in allowed)
        if _may_find(room, memberships.get(room_id, ()), meets_condition=meets_condition):
            found[room_id] = DiscoveredRoom(room.summary, room.membership, allowed)
    return Discovery(found, rooms.keys() - found.keys())


def _may_find(room: FoundRoom, memberships: Collection[str], *, meets_condition: bool) -> bool:
    if room.summary.history_visibility == "world_readable" or "join" in memberships or "invite" in memberships:
        return True
    if "ban" in memberships:
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
