"""Reading rooms between two positions of the stream, for `/sync`: events, memberships, and which state held when.

Every statement here takes many rooms at once; a position is included from `since` and excluded from `upto` on.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.filters import RoomEventFilter
from homeserver.core.ids import RoomId, UserId
from storage.database import Connection, Row
from storage.events import EVENT_COLUMNS_IN_ROOM, StoredEvent, stored_event


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """One change of a user's membership.

    Attributes:
        event_nid: the event that made it; 0 for a membership that has vanished by the resolution of conflicts.
    """

    room_nid: int
    room_id: RoomId
    membership: str
    event_nid: int
    position: int


@dataclass(frozen=True, slots=True)
class TimelineSpan:
    """The part of a room's stream that is wanted, newest first; `before_event_nid` says where to go on."""

    room_nid: int
    since: int
    upto: int
    before_event_nid: int


def _membership_change(row: Row) -> MembershipChange:
    return MembershipChange(
        room_nid=row["room_nid"],
        room_id=RoomId(row["room_id"]),
        membership=row["membership"],
        event_nid=row["event_nid"],
        position=row["position"],
    )


SELECT_MEMBERSHIPS: Final = """
    SELECT m.room_nid, r.room_id, m.membership, m.event_nid, m.position
    FROM memberships m JOIN rooms r USING (room_nid)
    WHERE m.user_id = $1 AND (m.membership IN ('join', 'invite', 'knock') OR m.position >= $2 OR $3)
"""


async def list_memberships_at(
    conn: Connection, user_id: UserId, *, position: int, with_left: bool
) -> list[MembershipChange]:
    """A local user's memberships just below a position, one for each room; those of rooms left only if wanted."""
    now = [_membership_change(row) for row in await conn.fetch(SELECT_MEMBERSHIPS, user_id, position, with_left)]
    later = [membership.room_nid for membership in now if membership.position >= position]
    before = await memberships_before(conn, user_id, later, position=position)
    return [membership for membership in now if membership.position < position] + list(before.values())


SELECT_MEMBERSHIP_CHANGES: Final = """
    SELECT c.room_nid, r.room_id, c.membership, c.event_nid, c.position
    FROM membership_changes c JOIN rooms r USING (room_nid)
    WHERE c.user_id = $1 AND c.position >= $2
    ORDER BY c.position, c.serial
"""


async def list_membership_changes(conn: Connection, user_id: UserId, *, since: int) -> list[MembershipChange]:
    """The changes of a user's memberships from a position on, in order, to this moment."""
    return [_membership_change(row) for row in await conn.fetch(SELECT_MEMBERSHIP_CHANGES, user_id, since)]


SELECT_MEMBERSHIPS_BEFORE: Final = """
    SELECT DISTINCT ON (c.room_nid) c.room_nid, r.room_id, c.membership, c.event_nid, c.position
    FROM membership_changes c JOIN rooms r USING (room_nid)
    WHERE c.user_id = $1 AND c.room_nid = ANY($2::integer[]) AND c.position < $3
    ORDER BY c.room_nid, c.position DESC, c.serial DESC
"""


async def memberships_before(
    conn: Connection, user_id: UserId, room_nids: Collection[int], *, position: int
) -> Mapping[int, MembershipChange]:
    """A user's last membership of each room below a position; rooms without one are absent."""
    if not room_nids:
        return {}
    rows = await conn.fetch(SELECT_MEMBERSHIPS_BEFORE, user_id, list(room_nids), position)
    return {row["room_nid"]: _membership_change(row) for row in rows}


SELECT_TIMELINES: Final = f"""
    SELECT e.*
    FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[])
        AS span (room_nid, since, upto, before_event_nid)
    CROSS JOIN LATERAL (SELECT room_id FROM rooms WHERE rooms.room_nid = span.room_nid OFFSET 0) AS in_room
    CROSS JOIN LATERAL (
        SELECT {EVENT_COLUMNS_IN_ROOM}
        FROM events
        WHERE events.room_nid = span.room_nid
            AND events.position >= span.since AND events.position < span.upto
            AND events.event_nid < span.before_event_nid
            AND ($5::text[] IS NULL OR events.type LIKE ANY ($5))
            AND NOT events.type LIKE ANY ($6::text[])
            AND ($7::text[] IS NULL OR events.sender = ANY ($7))
            AND NOT events.sender = ANY ($8::text[])
            AND (events.state_key IS NOT NULL OR NOT events.sender = ANY ($12::text[]))
            AND ($9::text[] IS NULL AND $10::text[] IS NULL OR EXISTS (
                SELECT FROM relations r JOIN events child USING (event_nid)
                WHERE r.relates_to = events.event_id
                    AND ($9 IS NULL OR child.sender = ANY ($9)) AND ($10 IS NULL OR r.rel_type = ANY ($10))
            ))
        ORDER BY events.position DESC, events.event_nid DESC
        LIMIT $11
    ) e
"""  # noqa: S608 - a constant list of columns


async def list_timelines(
    conn: Connection,
    spans: Sequence[TimelineSpan],
    *,
    event_filter: RoomEventFilter,
    limit: int,
    ignored_users: Collection[UserId] = (),
) -> Mapping[int, list[StoredEvent]]:
    """The newest events of each span, newest first, at most `limit` of each; rooms without any are absent.

    Of the filter, all is applied but its rooms and `contains_url`. Of ignored users there is only state. Events stand
    in a room's stream in the order of `event_nid`.
    """
    if not spans:
        return {}
    rows = await conn.fetch(
        SELECT_TIMELINES,
        [span.room_nid for span in spans],
        [span.since for span in spans],
        [span.upto for span in spans],
        [span.before_event_nid for span in spans],
        event_filter.types_like,
        event_filter.not_types_like,
        event_filter.senders,
        event_filter.not_senders,
        event_filter.related_by_senders,
        event_filter.related_by_rel_types,
        limit,
        list(ignored_users),
    )
    timelines: dict[int, list[StoredEvent]] = {}
    for row in rows:
        event = stored_event(row)
        timelines.setdefault(event.room_nid, []).append(event)
    return timelines


SELECT_LAST_PLACES: Final = """
    SELECT wanted.room_nid, last.topological
    FROM unnest($1::integer[]) AS wanted (room_nid)
    CROSS JOIN LATERAL (
        SELECT e.topological FROM events e
        WHERE e.room_nid = wanted.room_nid AND e.position < $2
        ORDER BY e.position DESC, e.event_nid DESC
        LIMIT 1
    ) AS last
"""


async def list_last_places(conn: Connection, room_nids: Collection[int], *, position: int) -> dict[int, int]:
    """Where in the history of rooms (`topological`) the last event stands that was streamed below a position."""
    rows = await conn.fetch(SELECT_LAST_PLACES, list(room_nids), position)
    return {row["room_nid"]: row["topological"] for row in rows if row["topological"] is not None}


SELECT_CURRENT: Final = """
    SELECT c.event_nid
    FROM events e
    JOIN state_slots s ON s.type = e.type AND s.state_key = e.state_key
    JOIN current_state c ON c.room_nid = e.room_nid AND c.slot_id = s.slot_id AND c.event_nid = e.event_nid
    WHERE e.event_nid = ANY ($1::bigint[])
"""


async def list_current(conn: Connection, event_nids: Sequence[int]) -> set[int]:
    """Those of some state events that are in the current state of their rooms."""
    if not event_nids:
        return set()
    return {row["event_nid"] for row in await conn.fetch(SELECT_CURRENT, event_nids)}


SELECT_STATES_BETWEEN: Final = """
    SELECT room_nid, (
        SELECT state_id FROM state_history h
        WHERE h.room_nid = wanted.room_nid AND h.position < $2
        ORDER BY h.position DESC, h.serial DESC
        LIMIT 1
    ) AS before_id, (
        SELECT state_id FROM state_history h
        WHERE h.room_nid = wanted.room_nid AND h.position < $3
        ORDER BY h.position DESC, h.serial DESC
        LIMIT 1
    ) AS after_id
    FROM unnest($1::integer[]) AS wanted (room_nid)
"""


@dataclass(frozen=True, slots=True)
class StatesBetween:
    """Which snapshots were a room's current state at two positions; None where it had none."""

    before_id: int | None
    after_id: int | None


async def states_between(
    conn: Connection, room_nids: Collection[int], *, since: int, upto: int
) -> Mapping[int, StatesBetween]:
    """Each room's current state just below the two positions."""
    if not room_nids:
        return {}
    rows = await conn.fetch(SELECT_STATES_BETWEEN, list(room_nids), since, upto)
    return {row["room_nid"]: StatesBetween(row["before_id"], row["after_id"]) for row in rows}


SELECT_HEROES: Final = """
    SELECT wanted.room_nid, ARRAY (
        SELECT m.user_id FROM memberships m
        WHERE m.room_nid = wanted.room_nid AND m.membership = ANY ($3::text[]) AND m.user_id <> $2
        ORDER BY m.event_nid
        LIMIT 5
    ) AS heroes
    FROM unnest($1::integer[]) AS wanted (room_nid)
"""

SELECT_SUMMARIES: Final = """
    SELECT room_nid, joined_members, invited_members,
        coalesce(name, '') <> '' OR coalesce(canonical_alias, '') <> '' AS is_named
    FROM room_summaries
    WHERE room_nid = ANY ($1::integer[])
"""


@dataclass(frozen=True, slots=True)
class RoomSummary:
    """What a client needs to name a room: how many members it has, and some of them if it has no name of its own."""

    joined_members: int
    invited_members: int
    heroes: Sequence[UserId] | None


async def list_summaries(conn: Connection, user_id: UserId, room_nids: Sequence[int]) -> Mapping[int, RoomSummary]:
    """The summaries of rooms for one of their members; heroes only of rooms without a name and an alias."""
    if not room_nids:
        return {}
    rows = await conn.fetch(SELECT_SUMMARIES, room_nids)
    unnamed = [row["room_nid"] for row in rows if not row["is_named"]]
    heroes = await _list_heroes(conn, user_id, unnamed, memberships=("join", "invite"))
    alone = [room_nid for room_nid in unnamed if not heroes.get(room_nid)]
    heroes |= await _list_heroes(conn, user_id, alone, memberships=("leave", "ban"))
    return {
        row["room_nid"]: RoomSummary(
            joined_members=row["joined_members"],
            invited_members=row["invited_members"],
            heroes=heroes.get(row["room_nid"]),
        )
        for row in rows
    }


async def _list_heroes(
    conn: Connection, user_id: UserId, room_nids: Sequence[int], *, memberships: Sequence[str]
) -> dict[int, list[UserId]]:
    if not room_nids:
        return {}
    rows = await conn.fetch(SELECT_HEROES, room_nids, user_id, memberships)
    return {row["room_nid"]: [UserId(hero) for hero in row["heroes"]] for row in rows}


SELECT_NEWCOMERS: Final = """
    SELECT user_id FROM memberships
    WHERE room_nid = ANY ($2::integer[]) AND membership = 'join' AND user_id <> $1
    UNION
    SELECT m.user_id FROM unnest($3::integer[], $4::text[]) AS changed (room_nid, user_id)
    JOIN memberships m USING (room_nid, user_id)
    WHERE m.membership = 'join' AND m.user_id <> $1
        -- Whoever has only another name now was there before.
        AND NOT EXISTS (SELECT FROM events e WHERE e.event_nid = m.joined_nid AND e.position < $5)
"""


async def list_newcomers(
    conn: Connection, user_id: UserId, *, entered: Collection[int], changed: Collection[tuple[int, UserId]], since: int
) -> list[UserId]:
    """Users with whom somebody may have begun to share a room.

    Args:
        user_id: who they are new to.
        entered: the rooms that this user has entered, whose members are all new.
        changed: rooms that this user was in before, each with a user whose member event has changed.
        since: the position from which on they joined.
    """
    if not entered and not changed:
        return []
    rooms, users = [room_nid for room_nid, _ in changed], [changed_id for _, changed_id in changed]
    rows = await conn.fetch(SELECT_NEWCOMERS, user_id, list(entered), rooms, users, since)
    return [UserId(row["user_id"]) for row in rows]


# For the hub's tick: whom to wake for the rows between two positions.
# What rooms are called is looked up for each that has news. A join would go through all rooms, for the planner expects
# much more news than there is each second.
SELECT_EVENT_KEYS: Final = """
    SELECT 'room:' || (SELECT r.room_id FROM rooms r WHERE r.room_nid = e.room_nid) AS key, max(e.position) AS position
    FROM events e
    WHERE e.position >= $1 AND e.position < $2 GROUP BY e.room_nid LIMIT $3
"""
SELECT_STATE_KEYS: Final = """
    SELECT 'state:' || (SELECT r.room_id FROM rooms r WHERE r.room_nid = h.room_nid) AS key, max(h.position) AS position
    FROM state_history h
    WHERE h.position >= $1 AND h.position < $2 GROUP BY h.room_nid LIMIT $3
"""
SELECT_MEMBERSHIP_KEYS: Final = """
    SELECT 'user:' || user_id AS key, max(position) AS position
    FROM membership_changes
    WHERE position >= $1 AND position < $2 GROUP BY user_id LIMIT $3
"""
