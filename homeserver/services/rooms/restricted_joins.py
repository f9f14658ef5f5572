"""Joining restricted rooms: who meets the conditions, and which member of the room can vouch for that.

https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms
"""

from collections.abc import Mapping
from typing import Final

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.auth_events import CREATE, JOIN_RULES, POWER_LEVELS, member_slot
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.ids import ServerName, UserId
from homeserver.core.pdu import Pdu
from storage.database import Connection
from storage.memberships import find_joined_among, find_joined_of_server, list_rooms_of_user
from storage.room_heads import RoomHead

_CONDITIONS_MAX: Final = 500


async def find_authorising_user(
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
        Forbidden: the user meets none of the conditions, or nobody of this server may invite.
    """
    join_rules, member = head.find(JOIN_RULES), head.find(member_slot(user_id))
    if join_rules is None or not _is_restricted(join_rules):
        return None
    if member is not None and member.membership in ("join", "invite"):
        return None
    rooms = _allowed_rooms(join_rules)
    if not any(row.room_id in rooms for row in await list_rooms_of_user(conn, user_id, ("join",))):
        raise Forbidden("You are in none of the rooms whose members may join")
    create = head.find(CREATE)
    levels = None if create is None else PowerLevels.in_force(head.find(POWER_LEVELS), create)
    vouching = None if levels is None else await _find_inviter(conn, head, levels, server_name)
    if vouching is None:
        raise Forbidden("No member of this server may invite to the room")
    return vouching


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
