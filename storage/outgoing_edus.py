"""What passes that other servers are told of: typing, public read receipts and presence of this server's own users.

Each statement reads one of the streams between two positions; a row shows only its newest state, so what changed
several times is told once.

https://spec.matrix.org/v1.19/server-server-api/#edus
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from storage.database import Connection, Row
from storage.presence import PresenceRow


@dataclass(frozen=True, slots=True)
class TypingChange:
    """A local user who has begun or ceased to type."""

    room_nid: int
    room_id: RoomId
    user_id: UserId
    is_typing: bool
    position: int


def _typing(row: Row) -> TypingChange:
    return TypingChange(
        row["room_nid"], RoomId(row["room_id"]), UserId(row["user_id"]), row["is_typing"], row["position"]
    )


SELECT_TYPING_CHANGES: Final = """
    SELECT t.room_nid, r.room_id, t.user_id, t.is_typing, t.position FROM typing t JOIN rooms r USING (room_nid)
    WHERE t.position >= $1 AND t.position < $2 AND substr(t.user_id, strpos(t.user_id, ':') + 1) = $3
    ORDER BY t.position LIMIT $4
"""


async def list_typing_changes(
    conn: Connection, server_name: ServerName, *, since: int, upto: int, limit: int
) -> list[TypingChange]:
    """The first changes from `since` on and before `upto`, of users of this server."""
    return [_typing(row) for row in await conn.fetch(SELECT_TYPING_CHANGES, since, upto, server_name, limit)]


SELECT_TYPING_NOW: Final = """
    SELECT t.room_nid, r.room_id, t.user_id, t.is_typing, t.position FROM typing t JOIN rooms r USING (room_nid)
    WHERE t.is_typing AND t.expires_at > clock_timestamp() AND substr(t.user_id, strpos(t.user_id, ':') + 1) = $1
    ORDER BY t.position LIMIT $2
"""


async def list_typing_now(conn: Connection, server_name: ServerName, *, limit: int) -> list[TypingChange]:
    """Who of this server is typing."""
    return [_typing(row) for row in await conn.fetch(SELECT_TYPING_NOW, server_name, limit)]


@dataclass(frozen=True, slots=True)
class ReceiptChange:
    """A local user's public read receipt; `thread_id` is None for one that regards no threads."""

    room_nid: int
    room_id: RoomId
    user_id: UserId
    thread_id: str | None
    event_id: EventId
    receipt_ts: int
    position: int


def _receipt(row: Row) -> ReceiptChange:
    return ReceiptChange(
        room_nid=row["room_nid"],
        room_id=RoomId(row["room_id"]),
        user_id=UserId(row["user_id"]),
        thread_id=row["thread_id"] or None,
        event_id=EventId(row["event_id"]),
        receipt_ts=row["receipt_ts"],
        position=row["position"],
    )


# Who has sent an event has read it: that goes without saying.
SELECT_RECEIPT_CHANGES: Final = """
    SELECT t.room_nid, r.room_id, t.user_id, t.thread_id, t.event_id, t.receipt_ts, t.position
    FROM receipts t JOIN rooms r USING (room_nid)
    WHERE t.position >= $1 AND t.position < $2 AND t.receipt_type = 'm.read'
        AND substr(t.user_id, strpos(t.user_id, ':') + 1) = $3
        AND NOT EXISTS (SELECT FROM events e WHERE e.event_nid = t.event_nid AND e.sender = t.user_id)
    ORDER BY t.position LIMIT $4
"""
SELECT_NEWEST_RECEIPTS: Final = """
    SELECT t.room_nid, r.room_id, t.user_id, t.thread_id, t.event_id, t.receipt_ts, t.position
    FROM receipts t JOIN rooms r USING (room_nid)
    WHERE t.position >= $1 AND t.position < $2 AND t.receipt_type = 'm.read'
        AND substr(t.user_id, strpos(t.user_id, ':') + 1) = $3
        AND NOT EXISTS (SELECT FROM events e WHERE e.event_nid = t.event_nid AND e.sender = t.user_id)
    ORDER BY t.position DESC LIMIT $4
"""


async def list_receipt_changes(
    conn: Connection, server_name: ServerName, *, since: int, upto: int, limit: int, newest: bool = False
) -> list[ReceiptChange]:
    """The first receipts of this server's users that moved from `since` on and before `upto`; or the last of them."""
    statement = SELECT_NEWEST_RECEIPTS if newest else SELECT_RECEIPT_CHANGES
    return [_receipt(row) for row in await conn.fetch(statement, since, upto, server_name, limit)]


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """A local user's presence."""

    presence: PresenceRow
    position: int

    @property
    def user_id(self) -> UserId:
        """Whose it is."""
        return self.presence.user_id


def _presence(row: Row) -> PresenceChange:
    presence = PresenceRow(
        user_id=UserId(row["user_id"]),
        presence=row["presence"],
        status_msg=row["status_msg"],
        last_active_ts=row["last_active_ts"],
        currently_active=row["currently_active"],
    )
    return PresenceChange(presence, row["position"])


# Position 0 belongs to those who have never been seen.
SELECT_PRESENCE_CHANGES: Final = """
    SELECT user_id, presence, status_msg, last_active_ts, currently_active, position FROM presence
    WHERE position >= $1 AND position < $2 AND position > 0 AND substr(user_id, strpos(user_id, ':') + 1) = $3
    ORDER BY position LIMIT $4
"""
SELECT_NEWEST_PRESENCE: Final = """
    SELECT user_id, presence, status_msg, last_active_ts, currently_active, position FROM presence
    WHERE position >= $1 AND position < $2 AND position > 0 AND substr(user_id, strpos(user_id, ':') + 1) = $3
    ORDER BY position DESC LIMIT $4
"""


async def list_presence_changes(
    conn: Connection, server_name: ServerName, *, since: int, upto: int, limit: int, newest: bool = False
) -> list[PresenceChange]:
    """The first changes of presence of this server's users from `since` on and before `upto`; or the last of them."""
    statement = SELECT_NEWEST_PRESENCE if newest else SELECT_PRESENCE_CHANGES
    return [_presence(row) for row in await conn.fetch(statement, since, upto, server_name, limit)]


SELECT_PRESENT_USERS: Final = """
    SELECT user_id, presence, status_msg, last_active_ts, currently_active, position FROM presence
    WHERE presence <> 'offline' AND user_id > $1 AND substr(user_id, strpos(user_id, ':') + 1) = $2
    ORDER BY user_id LIMIT $3
"""


async def list_present_users(
    conn: Connection, server_name: ServerName, *, after: str, limit: int
) -> list[PresenceChange]:
    """A page of this server's users who are not offline, by their ids."""
    return [_presence(row) for row in await conn.fetch(SELECT_PRESENT_USERS, after, server_name, limit)]


SELECT_PRESENT_IN_ROOMS: Final = """
    SELECT wanted.room_nid, p.user_id, p.presence, p.status_msg, p.last_active_ts, p.currently_active, p.position
    FROM unnest($1::integer[]) AS wanted (room_nid) CROSS JOIN LATERAL (
        SELECT p.* FROM memberships m JOIN presence p USING (user_id)
        WHERE m.room_nid = wanted.room_nid AND m.membership = 'join' AND p.presence <> 'offline'
            AND substr(m.user_id, strpos(m.user_id, ':') + 1) = $2
        LIMIT $3
    ) AS p
"""


async def list_present_in_rooms(
    conn: Connection, server_name: ServerName, room_nids: Collection[int], *, limit_per_room: int
) -> list[tuple[int, PresenceChange]]:
    """This server's users in some rooms who are not offline, each with the `room_nid`."""
    rows = await conn.fetch(SELECT_PRESENT_IN_ROOMS, list(room_nids), server_name, limit_per_room)
    return [(row["room_nid"], _presence(row)) for row in rows]


SELECT_JOINED_ROOMS: Final = """
    SELECT user_id, room_nid FROM memberships WHERE user_id = ANY ($1::text[]) AND membership = 'join'
"""


async def list_joined_rooms(conn: Connection, user_ids: Collection[UserId]) -> dict[UserId, list[int]]:
    """The rooms (`room_nid`) that some users are joined to; users who are in none are absent."""
    rooms: dict[UserId, list[int]] = {}
    for row in await conn.fetch(SELECT_JOINED_ROOMS, list(user_ids)):
        rooms.setdefault(UserId(row["user_id"]), []).append(row["room_nid"])
    return rooms


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A user who has begun to be joined to a room."""

    room_nid: int
    user_id: UserId


# One by one: never by a plan that goes through all memberships, as it would be made while there are few.
SELECT_NEWCOMERS: Final = """
    SELECT m.room_nid, m.user_id
    FROM events e
    CROSS JOIN LATERAL (
        SELECT m.room_nid, m.user_id FROM memberships m
        WHERE m.user_id = e.state_key AND m.room_nid = e.room_nid AND m.joined_nid = e.event_nid
            AND m.membership = 'join'
        OFFSET 0
    ) AS m
    WHERE e.position >= $1 AND e.position < $2 AND e.type = 'm.room.member'
    LIMIT $3
"""


async def list_newcomers(conn: Connection, *, since: int, upto: int, limit: int) -> list[Newcomer]:
    """Users of any server who joined rooms from `since` on and before `upto`."""
    rows = await conn.fetch(SELECT_NEWCOMERS, since, upto, limit)
    return [Newcomer(row["room_nid"], UserId(row["user_id"])) for row in rows]
