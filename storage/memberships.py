"""Who is in which room, as the current state of the rooms has it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import RoomId, ServerName, UserId
from storage.database import Connection, Row
from storage.rooms import RoomRow, room_row


@dataclass(frozen=True, slots=True)
class MembershipRow:
    """A user's membership of a room.

    Attributes:
        membership: join, invite, knock, leave or ban.
        event_nid: the event that set it.
        sender: who sent that.
        forgotten: the user has left and does not want to hear of the room any more.
    """

    user_id: UserId
    room_nid: int
    room_id: RoomId
    membership: str
    event_nid: int
    sender: UserId
    forgotten: bool


def _membership(row: Row) -> MembershipRow:
    return MembershipRow(
        user_id=UserId(row["user_id"]),
        room_nid=row["room_nid"],
        room_id=RoomId(row["room_id"]),
        membership=row["membership"],
        event_nid=row["event_nid"],
        sender=UserId(row["sender"]),
        forgotten=row["forgotten"],
    )


SELECT_MEMBERSHIP: Final = """
    SELECT m.user_id, m.room_nid, r.room_id, m.membership, m.event_nid, m.sender, m.forgotten
    FROM rooms r JOIN memberships m USING (room_nid)
    WHERE r.room_id = $1 AND m.user_id = $2
"""


async def find_membership(conn: Connection, *, room_id: RoomId, user_id: UserId) -> MembershipRow | None:
    """A user's membership of a room; None if it never had one."""
    row = await conn.fetchrow(SELECT_MEMBERSHIP, room_id, user_id)
    return None if row is None else _membership(row)


@dataclass(frozen=True, slots=True)
class RoomForUser:
    """A room, and what a user has to do with it.

    Attributes:
        membership: the user's; None if it never had one.
        is_partial: not all members of the room are known yet.
    """

    room: RoomRow
    membership: MembershipRow | None
    is_partial: bool


SELECT_ROOM_FOR_USER: Final = """
    SELECT r.room_nid, r.room_id, r.room_version, r.state_version, r.state_id, r.forward_extremities,
        m.user_id, m.membership, m.event_nid, m.sender, m.forgotten,
        EXISTS (SELECT FROM partial_rooms p WHERE p.room_nid = r.room_nid) AS is_partial
    FROM rooms r LEFT JOIN memberships m ON m.room_nid = r.room_nid AND m.user_id = $2
    WHERE r.room_id = $1
"""


async def find_room_for_user(conn: Connection, *, room_id: RoomId, user_id: UserId) -> RoomForUser | None:
    """A room and a user's membership of it; None if this server has never heard of the room."""
    row = await conn.fetchrow(SELECT_ROOM_FOR_USER, room_id, user_id)
    if row is None:
        return None
    return RoomForUser(
        room=room_row(row),
        membership=None if row["membership"] is None else _membership(row),
        is_partial=row["is_partial"],
    )


SELECT_ROOMS_OF_USER: Final = """
    SELECT m.user_id, m.room_nid, r.room_id, m.membership, m.event_nid, m.sender, m.forgotten
    FROM memberships m JOIN rooms r USING (room_nid)
    WHERE m.user_id = $1 AND m.membership = ANY ($2::text[])
    ORDER BY m.room_nid
"""


async def list_rooms_of_user(conn: Connection, user_id: UserId, memberships: Sequence[str]) -> list[MembershipRow]:
    """The rooms in which a user has one of the memberships, in the order in which this server came to know them."""
    return [_membership(row) for row in await conn.fetch(SELECT_ROOMS_OF_USER, user_id, memberships)]


SELECT_MEMBERS: Final = """
    SELECT m.user_id, m.room_nid, r.room_id, m.membership, m.event_nid, m.sender, m.forgotten
    FROM memberships m JOIN rooms r USING (room_nid)
    WHERE m.room_nid = $1 AND m.membership = ANY ($2::text[])
    ORDER BY m.event_nid
"""


async def list_members(conn: Connection, room_nid: int, memberships: Sequence[str]) -> list[MembershipRow]:
    """The users who have one of the memberships in a room, who has had it longest first."""
    return [_membership(row) for row in await conn.fetch(SELECT_MEMBERS, room_nid, memberships)]


SELECT_JOINED_USERS: Final = """
    SELECT user_id FROM memberships WHERE room_nid = $1 AND membership = 'join' ORDER BY event_nid
"""


async def list_joined_users(conn: Connection, room_nid: int) -> list[UserId]:
    """The users who are joined to a room, of this and other servers."""
    return [UserId(row["user_id"]) for row in await conn.fetch(SELECT_JOINED_USERS, room_nid)]


SELECT_JOINED_AMONG: Final = """
    SELECT user_id FROM memberships
    WHERE room_nid = $1 AND user_id = ANY ($2::text[]) AND membership = 'join'
    ORDER BY event_nid
    LIMIT 1
"""


async def find_joined_among(conn: Connection, room_nid: int, user_ids: Collection[str]) -> UserId | None:
    """Of some users, the one who has been joined to a room longest; None if none is."""
    user_id = await conn.fetchval(SELECT_JOINED_AMONG, room_nid, list(user_ids))
    return None if user_id is None else UserId(user_id)


SELECT_JOINED_OF_SERVER: Final = """
    SELECT user_id FROM memberships
    WHERE room_nid = $1 AND membership = 'join' AND right(user_id, length($2) + 1) = ':' || $2
    ORDER BY event_nid
    LIMIT $3
"""


async def find_joined_of_server(
    conn: Connection, room_nid: int, server_name: ServerName, *, limit: int
) -> list[UserId]:
    """Some users of a server who are joined to a room."""
    return [UserId(row["user_id"]) for row in await conn.fetch(SELECT_JOINED_OF_SERVER, room_nid, server_name, limit)]


SELECT_JOINED_GUESTS: Final = """
    SELECT m.user_id FROM memberships m JOIN users u USING (user_id)
    WHERE m.room_nid = $1 AND m.membership = 'join' AND u.is_guest
    ORDER BY m.event_nid
"""


async def list_joined_guests(conn: Connection, room_nid: int) -> list[UserId]:
    """The guests of this server who are joined to a room."""
    return [UserId(row["user_id"]) for row in await conn.fetch(SELECT_JOINED_GUESTS, room_nid)]


SELECT_SHARES_ROOM: Final = """
    SELECT EXISTS (
        SELECT FROM memberships mine JOIN memberships theirs USING (room_nid)
        WHERE mine.user_id = $1 AND mine.membership = 'join' AND theirs.user_id = $2 AND theirs.membership = 'join'
    )
"""


async def shares_room(conn: Connection, *, user_id: UserId, other_user_id: UserId) -> bool:
    """Whether two users are joined to a room together."""
    return bool(await conn.fetchval(SELECT_SHARES_ROOM, user_id, other_user_id))


SELECT_USERS_SHARING_ROOMS: Final = """
    SELECT DISTINCT theirs.user_id
    FROM memberships mine JOIN memberships theirs USING (room_nid)
    WHERE mine.user_id = $1 AND mine.membership = 'join' AND theirs.membership = 'join' AND theirs.user_id <> $1
        AND ($2::text[] IS NULL OR theirs.user_id = ANY ($2))
"""


async def list_users_sharing_rooms(
    conn: Connection, user_id: UserId, *, among: Collection[UserId] | None = None
) -> set[UserId]:
    """The other users who are joined to a room together with a user: all of them, or those of `among`."""
    wanted = None if among is None else list(among)
    return {UserId(row["user_id"]) for row in await conn.fetch(SELECT_USERS_SHARING_ROOMS, user_id, wanted)}


SELECT_MEMBERSHIPS_IN: Final = """
    SELECT m.user_id, m.room_nid, r.room_id, m.membership, m.event_nid, m.sender, m.forgotten
    FROM memberships m JOIN rooms r USING (room_nid)
    WHERE m.user_id = $1 AND m.room_nid = ANY ($2::integer[])
"""


async def list_memberships_in(
    conn: Connection, user_id: UserId, room_nids: Collection[int]
) -> dict[int, MembershipRow]:
    """A user's memberships of some rooms, by `room_nid`; rooms where it never had one are absent."""
    rows = await conn.fetch(SELECT_MEMBERSHIPS_IN, user_id, list(room_nids))
    return {row["room_nid"]: _membership(row) for row in rows}


SELECT_DEPARTURE: Final = """
    SELECT c.event_nid FROM membership_changes c
    WHERE c.user_id = $1 AND c.room_nid = $2 AND c.membership <> 'join' AND c.event_nid > (
        SELECT max(j.event_nid) FROM membership_changes j
        WHERE j.user_id = $1 AND j.room_nid = $2 AND j.membership = 'join'
    )
    ORDER BY c.event_nid
    LIMIT 1
"""


async def find_departure(conn: Connection, *, room_nid: int, user_id: UserId) -> int | None:
    """The event by which a local user last ended being joined to a room; None if it is joined or never was."""
    event_nid: int | None = await conn.fetchval(SELECT_DEPARTURE, user_id, room_nid)
    return event_nid


SELECT_DEPARTURES: Final = """
    SELECT DISTINCT ON (c.room_nid) c.room_nid, c.event_nid
    FROM membership_changes c
    JOIN (
        SELECT room_nid, max(event_nid) AS event_nid FROM membership_changes
        WHERE user_id = $1 AND room_nid = ANY ($2::integer[]) AND membership = 'join'
        GROUP BY room_nid
    ) AS last_join USING (room_nid)
    WHERE c.user_id = $1 AND c.membership <> 'join' AND c.event_nid > last_join.event_nid
    ORDER BY c.room_nid, c.event_nid
"""


async def list_departures(conn: Connection, user_id: UserId, room_nids: Collection[int]) -> dict[int, int]:
    """As `find_departure`, for many rooms, by `room_nid`; rooms that the user never left are absent."""
    rows = await conn.fetch(SELECT_DEPARTURES, user_id, list(room_nids))
    return {row["room_nid"]: row["event_nid"] for row in rows}


SELECT_LAST_JOINS: Final = """
    SELECT c.room_nid, max(e.topological) AS topological
    FROM membership_changes c JOIN events e USING (event_nid)
    WHERE c.user_id = $1 AND c.room_nid = ANY ($2::integer[]) AND c.membership = 'join'
    GROUP BY c.room_nid
"""


async def last_joins(conn: Connection, user_id: UserId, room_nids: Collection[int]) -> dict[int, int]:
    """Where in each room's history (`topological`) a local user last joined; rooms that it never joined are absent."""
    rows = await conn.fetch(SELECT_LAST_JOINS, user_id, list(room_nids))
    return {row["room_nid"]: row["topological"] for row in rows if row["topological"] is not None}


UPDATE_FORGOTTEN: Final = """
    UPDATE memberships SET forgotten = true
    WHERE user_id = $1 AND room_nid = $2 AND membership IN ('leave', 'ban') AND NOT forgotten
"""


async def forget_room(conn: Connection, *, room_nid: int, user_id: UserId) -> None:
    """Notes that a user who has left a room does not want to hear of it any more."""
    await conn.execute(UPDATE_FORGOTTEN, user_id, room_nid)
