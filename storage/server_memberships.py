"""Which servers take part in rooms, and by which of their users.

Of a room that this server has come into without being told of all members (`partial_rooms`) the servers are known.

A server's users are told by what stands behind the first colon of their ids, never by how the ids end: `@a:b:8448` is a
user of `b:8448`, not one of a server `8448`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.core.room_versions import room_version_named
from storage.database import Connection
from storage.rooms import RoomRow


@dataclass(frozen=True, slots=True)
class ServerAclRow:
    """Which `m.room.server_acl` event is in force in a room, and in which revision of its text."""

    event_nid: int
    revision: int


@dataclass(frozen=True, slots=True)
class RoomForServer:
    """A room, as far as it decides whether another server has part in it.

    Attributes:
        is_joined: the other server has users in the room, as far as members are known, or is said to have some.
        acl: None if the room has none.
    """

    room: RoomRow
    is_joined: bool
    acl: ServerAclRow | None


SELECT_ROOM_FOR_SERVER: Final = """
    SELECT r.room_nid, r.room_id, r.room_version, r.state_version, r.state_id, r.forward_extremities,
        EXISTS (
            SELECT FROM memberships m
            WHERE m.room_nid = r.room_nid AND m.membership = 'join'
                AND substring(m.user_id FROM position(':' IN m.user_id) + 1) = $2
        ) OR EXISTS (
            SELECT FROM partial_rooms p WHERE p.room_nid = r.room_nid AND $2 = ANY (p.servers)
        ) AS is_joined,
        acl.event_nid AS acl_nid, acl.revision AS acl_revision
    FROM rooms r
    LEFT JOIN current_state c ON c.room_nid = r.room_nid AND c.slot_id = (
        SELECT slot_id FROM state_slots WHERE type = 'm.room.server_acl' AND state_key = ''
    )
    LEFT JOIN events acl ON acl.event_nid = c.event_nid
    WHERE r.room_id = $1
"""


async def find_room_for_server(conn: Connection, room_id: RoomId, server_name: ServerName) -> RoomForServer | None:
    """A room with what decides whether a server has part in it; None if this server has never heard of it."""
    row = await conn.fetchrow(SELECT_ROOM_FOR_SERVER, room_id, server_name)
    if row is None:
        return None
    room = RoomRow(
        room_nid=row["room_nid"],
        room_id=RoomId(row["room_id"]),
        room_version=room_version_named(row["room_version"]),
        state_version=row["state_version"],
        state_id=row["state_id"],
        forward_extremities=row["forward_extremities"],
    )
    acl = None if row["acl_nid"] is None else ServerAclRow(row["acl_nid"], row["acl_revision"])
    return RoomForServer(room, row["is_joined"], acl)


SELECT_SERVER_ACL: Final = """
    SELECT e.event_nid, e.revision
    FROM rooms r
    JOIN current_state c USING (room_nid)
    JOIN state_slots slot USING (slot_id)
    JOIN events e ON e.event_nid = c.event_nid
    WHERE r.room_id = $1 AND slot.type = 'm.room.server_acl' AND slot.state_key = ''
"""


async def find_server_acl(conn: Connection, room_id: RoomId) -> ServerAclRow | None:
    """The access control list of a room's current state; None if there is none, or no such room."""
    row = await conn.fetchrow(SELECT_SERVER_ACL, room_id)
    return None if row is None else ServerAclRow(row["event_nid"], row["revision"])


SELECT_JOINED_ROOMS_AMONG: Final = """
    SELECT m.room_nid FROM memberships m
    WHERE m.room_nid = ANY ($1::integer[]) AND m.membership = 'join'
        AND substring(m.user_id FROM position(':' IN m.user_id) + 1) = $2
    UNION
    SELECT p.room_nid FROM partial_rooms p WHERE p.room_nid = ANY ($1::integer[]) AND $2 = ANY (p.servers)
"""


async def list_joined_rooms_among(conn: Connection, room_nids: Collection[int], server_name: ServerName) -> set[int]:
    """Those of some rooms (`room_nid`) that a server has users in, or is said to have where members are not known."""
    return {row["room_nid"] for row in await conn.fetch(SELECT_JOINED_ROOMS_AMONG, list(room_nids), server_name)}


SELECT_USERS_OF_SERVER: Final = """
    SELECT m.room_nid, m.user_id FROM memberships m
    WHERE m.room_nid = ANY ($1::integer[])
        AND substring(m.user_id FROM position(':' IN m.user_id) + 1) = $2
"""


async def list_users_of_server(
    conn: Connection, room_nids: Collection[int], server_name: ServerName
) -> dict[int, list[UserId]]:
    """The users of a server who have any membership of some rooms, or once had one, by `room_nid`."""
    users: dict[int, list[UserId]] = {}
    for row in await conn.fetch(SELECT_USERS_OF_SERVER, list(room_nids), server_name):
        users.setdefault(row["room_nid"], []).append(UserId(row["user_id"]))
    return users


@dataclass(frozen=True, slots=True)
class PlacedMember:
    """A member event and its place in the room's history."""

    room_nid: int
    event_nid: int
    topological: int


SELECT_MEMBER_EVENTS: Final = """
    SELECT room_nid, event_nid, topological FROM events
    WHERE room_nid = ANY ($1::integer[]) AND type = 'm.room.member' AND state_key = ANY ($2::text[])
        AND topological IS NOT NULL
"""


async def list_member_events(
    conn: Connection, room_nids: Collection[int], user_ids: Sequence[UserId]
) -> list[PlacedMember]:
    """All member events of some users in some rooms."""
    return [PlacedMember(*row) for row in await conn.fetch(SELECT_MEMBER_EVENTS, list(room_nids), user_ids)]


SELECT_MEMBERSHIPS_OF_SERVER: Final = """
    SELECT r.room_id, array_agg(DISTINCT m.membership) AS memberships
    FROM rooms r JOIN room_summaries s USING (room_nid) JOIN memberships m USING (room_nid)
    WHERE r.room_id = ANY ($1::text[]) AND s.local_joined_members > 0
        AND substring(m.user_id FROM position(':' IN m.user_id) + 1) = $2
    GROUP BY r.room_id
"""


async def list_memberships_of_server(
    conn: Connection, room_ids: Collection[str], server_name: ServerName
) -> dict[RoomId, set[str]]:
    """Which memberships users of a server have now in those of some rooms that this server is in.

    Rooms where it has none are absent.
    """
    if not room_ids:
        return {}
    rows = await conn.fetch(SELECT_MEMBERSHIPS_OF_SERVER, list(room_ids), server_name)
    return {RoomId(row["room_id"]): set(row["memberships"]) for row in rows}


SELECT_SHARES_ROOM_WITH_SERVER: Final = """
    SELECT EXISTS (
        SELECT FROM memberships mine JOIN memberships theirs USING (room_nid)
        WHERE mine.user_id = $1 AND mine.membership = 'join' AND theirs.membership = 'join'
            AND substring(theirs.user_id FROM position(':' IN theirs.user_id) + 1) = $2
    ) OR EXISTS (
        SELECT FROM memberships mine JOIN partial_rooms p USING (room_nid)
        WHERE mine.user_id = $1 AND mine.membership = 'join' AND $2 = ANY (p.servers)
    )
"""


async def shares_room_with_server(conn: Connection, *, user_id: UserId, server_name: ServerName) -> bool:
    """Whether a user is joined to a room together with any user of a server, as far as members are known."""
    return bool(await conn.fetchval(SELECT_SHARES_ROOM_WITH_SERVER, user_id, server_name))
