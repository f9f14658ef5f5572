"""Joining restricted rooms: who meets the conditions, and which member of the room can vouch for that.

https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms
"""

from collections.abc import Mapping
from typing import Final

from homeserver.core.errors import Forbidden, InvalidParam, UnableToAuthoriseJoin, UnableToGrantJoin
from homeserver.core.event_auth.auth_events import CREATE, JOIN_RULES, POWER_LEVELS, member_slot
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.ids import ServerName, UserId
from homeserver.core.pdu import Pdu
from storage.database import Connection
from storage.memberships import find_joined_among, find_joined_of_server
from storage.resident_rooms import list_known_memberships
from storage.room_heads import RoomHead

_CONDITIONS_MAX: Final = 500


async def authorise_join(
    conn: Connection, head: RoomHead, user_id: UserId, *, server_name: ServerName
) -> UserId | None:
    """The member of this server by whose right to invite a user may join a restricted room.

    Args:
        conn: to read with.
        head: the room, with the entries create, join rules, power levels and the user's membership.
        user_id: who wants to join.
        server_name: this server.

    Returns:
        None if nobody is needed: the room is not restricted, or the user is invited or in it.

    Raises:
        Forbidden: the user is banned, or meets none of the conditions.
        UnableToAuthoriseJoin: the user meets none that this server can judge, but there are others.
        UnableToGrantJoin: the user meets a condition, but nobody of this server may invite.
    """
    join_rules, member = head.find(JOIN_RULES), head.find(member_slot(user_id))
    if join_rules is None or not _is_restricted(join_rules):
        return None
    held = None if member is None else member.membership
    if held in ("join", "invite"):
        return None
    if held == "ban":
        raise Forbidden("The user is banned from the room")
    await _check_conditions(conn, join_rules, user_id, server_name)
    create = head.find(CREATE)
    levels = None if create is None else PowerLevels.in_force(head.find(POWER_LEVELS), create)
    vouching = None if levels is None else await _find_inviter(conn, head, levels, server_name)
    if vouching is None:
        raise UnableToGrantJoin("No member of this server may invite to the room")
    return vouching


async def _check_conditions(conn: Connection, join_rules: Pdu, user_id: UserId, server_name: ServerName) -> None:
    """Checks that a user is in one of the rooms whose members may join.

    Where our own users are we always know, but another server's users only as long as we are in the room ourselves.
    """
    wanted = _allowed_rooms(join_rules)
    known = await list_known_memberships(conn, user_id, wanted)
    is_ours = user_id.server_name == server_name
    judged = {room_id for room_id in wanted if is_ours or (room_id in known and known[room_id].is_resident)}
    if any(known[room_id].is_joined for room_id in judged & known.keys()):
        return
    if judged != wanted:
        raise UnableToAuthoriseJoin("This server is not in all of the rooms whose members may join")
    raise Forbidden("You are in none of the rooms whose members may join")


def _is_restricted(join_rules: Pdu) -> bool:
    version = join_rules.room_version
    match join_rules.content.get("join_rule"):
        case "restricted":
            return version.restricted_join_allowed
        case "knock_restricted":
            return version.knock_restricted_allowed
        case _:
            return False


def _allowed_rooms(join_rules: Pdu) -> set[str]:
    """The rooms whose members may join. Conditions of other types, and malformed ones, are met by nobody."""
    conditions = join_rules.content.get("allow")
    if not isinstance(conditions, list):
        return set()
    return {
        condition["room_id"]
        for condition in conditions[:_CONDITIONS_MAX]
        if isinstance(condition, Mapping)
        and condition.get("type") == "m.room_membership"
        and isinstance(condition.get("room_id"), str)
    }


async def _find_inviter(
    conn: Connection, head: RoomHead, levels: PowerLevels, server_name: ServerName
) -> UserId | None:
    """A joined member of this server who may invite."""
    named = {user_id for user_id in {*levels.users, *levels.creators} if levels.user_level(user_id) >= levels.invite}
    local = [user_id for user_id in named if user_id.endswith(f":{server_name}")]
    found = await find_joined_among(conn, head.room_nid, local)
    if found is None and levels.user_level("") >= levels.invite:
        others = await find_joined_of_server(conn, head.room_nid, server_name, limit=20)
        found = next((user_id for user_id in others if levels.user_level(user_id) >= levels.invite), None)
    return found


def list_inviting_servers(head: RoomHead) -> list[ServerName]:
    """Servers of users who stand in the power levels and may invite, if they are joined; the most powerful first.

    Args:
        head: the room, with the entries create and power levels.
    """
    create = head.find(CREATE)
    if create is None:
        return []
    levels = PowerLevels.in_force(head.find(POWER_LEVELS), create)
    named = sorted({*levels.users, *levels.creators}, key=lambda user_id: (-levels.user_level(user_id), user_id))
    able = [user_id for user_id in named if levels.user_level(user_id) >= levels.invite]
    return list(dict.fromkeys(server_name for user_id in able if (server_name := _server_of(user_id)) is not None))


def _server_of(user_id: str) -> ServerName | None:
    """The server of a user whom power levels name; they may name what is no user."""
    try:
        return UserId.parse(user_id).server_name
    except InvalidParam:
        return None
