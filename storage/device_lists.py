"""Whose devices and keys have changed for a user, and with whom it shares no encrypted room any more.

https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.ids import UserId
from storage.database import Connection

UPSERT_DEVICE_LIST_CHANGES: Final = """
    INSERT INTO device_list_changes (user_id)
    SELECT DISTINCT given.user_id FROM unnest($1::text[]) AS given (user_id) ORDER BY given.user_id
    ON CONFLICT (user_id) DO UPDATE SET position = stream_position()
    RETURNING position
"""


async def upsert_device_list_changes(conn: Connection, user_ids: Collection[UserId]) -> int:
    """Notes that the devices or keys of users (at least one) have changed; the position."""
    rows = await conn.fetch(UPSERT_DEVICE_LIST_CHANGES, list(user_ids))
    position: int = rows[0]["position"]
    return position


UPSERT_SIGNED_USERS: Final = """
    INSERT INTO signed_users (signer_id, user_id)
    SELECT $1, given.user_id FROM unnest($2::text[]) AS given (user_id) ORDER BY given.user_id
    ON CONFLICT (signer_id, user_id) DO UPDATE SET position = stream_position()
    RETURNING position
"""


async def upsert_signed_users(conn: Connection, signer_id: UserId, user_ids: Collection[UserId]) -> int:
    """Notes that a user has signed others' (at least one's) master keys; the position."""
    rows = await conn.fetch(UPSERT_SIGNED_USERS, signer_id, list(user_ids))
    position: int = rows[0]["position"]
    return position


DELETE_SIGNED_USERS: Final = "DELETE FROM signed_users WHERE signer_id = $1"


async def delete_signed_users(conn: Connection, signer_id: UserId) -> None:
    """Forgets whose master keys a user has signed."""
    await conn.execute(DELETE_SIGNED_USERS, signer_id)


@dataclass(frozen=True, slots=True)
class DeviceListChanges:
    """What a user must know of the devices of others, and of its own.

    Attributes:
        changed: whose keys are to be asked for anew.
        left: with whom no encrypted room is shared any more.
    """

    changed: Collection[UserId] = field(default_factory=tuple)
    left: Collection[UserId] = field(default_factory=tuple)


# The rooms that count are encrypted ones. `entered`: the user has come to it, or it is encrypted only now, or who is in
# it is known only now; then all are new to the user. In `active` rooms the user was all the time: then those who came
# and went count.
SELECT_DEVICE_LISTS: Final = """
    WITH mine AS MATERIALIZED (
        SELECT m.room_nid, s.encryption IS NOT NULL AS is_encrypted
        FROM memberships m JOIN room_summaries s USING (room_nid)
        WHERE m.user_id = $1 AND m.membership = 'join'
    ), turned AS (
        SELECT c.room_nid FROM current_state c JOIN state_slots s USING (slot_id) JOIN events e USING (event_nid)
        WHERE s.type = 'm.room.encryption' AND s.state_key = '' AND c.room_nid = ANY ($6::integer[])
            AND e.position >= $2 AND e.position < $3
    ), entered AS (
        SELECT room_nid FROM mine WHERE is_encrypted AND room_nid = ANY ($4::integer[])
        UNION
        SELECT room_nid FROM turned JOIN mine USING (room_nid)
        UNION
        SELECT c.room_nid FROM completed_rooms c JOIN mine USING (room_nid)
        WHERE is_encrypted AND c.room_nid = ANY ($6::integer[]) AND c.position >= $2 AND c.position < $3
    ), gone AS (
        SELECT m.user_id FROM memberships m JOIN room_summaries s USING (room_nid)
        WHERE s.encryption IS NOT NULL AND m.room_nid = ANY ($5::integer[])
            AND (m.membership = 'join' OR m.position >= $2)
        UNION
        SELECT m.user_id FROM memberships m JOIN mine USING (room_nid)
        WHERE mine.is_encrypted AND m.room_nid = ANY ($6::integer[]) AND m.position >= $2 AND m.position < $3
            AND m.membership IN ('leave', 'ban')
    )
    SELECT d.user_id, false AS has_left FROM device_list_changes d
    WHERE d.position >= $2 AND d.position < $3 AND (d.user_id = $1 OR EXISTS (
        SELECT FROM mine JOIN memberships theirs USING (room_nid)
        WHERE theirs.user_id = d.user_id AND theirs.membership = 'join'
    ))
    UNION
    SELECT v.user_id, false FROM signed_users v WHERE v.signer_id = $1 AND v.position >= $2 AND v.position < $3
    UNION
    SELECT m.user_id, false FROM memberships m JOIN entered USING (room_nid)
    WHERE m.membership = 'join' AND m.user_id <> $1
    UNION
    SELECT m.user_id, false FROM memberships m JOIN mine USING (room_nid)
    WHERE mine.is_encrypted AND m.room_nid = ANY ($6::integer[]) AND m.position >= $2 AND m.membership = 'join'
        AND m.user_id <> $1
        AND EXISTS (SELECT FROM events e WHERE e.event_nid = m.joined_nid AND e.position >= $2 AND e.position < $3)
    UNION
    SELECT g.user_id, true FROM gone g
    WHERE g.user_id <> $1 AND NOT EXISTS (
        SELECT FROM mine JOIN memberships theirs USING (room_nid)
        WHERE mine.is_encrypted AND theirs.user_id = g.user_id AND theirs.membership = 'join'
    )
    ORDER BY user_id
"""


async def list_device_lists(
    conn: Connection,
    user_id: UserId,
    *,
    since: int,
    upto: int,
    entered: Collection[int],
    left: Collection[int],
    active: Collection[int],
) -> DeviceListChanges:
    """What happened for a user from `since` on and before `upto`.

    Args:
        entered: the rooms (`room_nid`) to which the user has come meanwhile.
        left: those that it has left.
        active: those whose state has changed; rooms that the user is not in do not matter.
    """
    rows = await conn.fetch(SELECT_DEVICE_LISTS, user_id, since, upto, list(entered), list(left), list(active))
    left_users = [UserId(row["user_id"]) for row in rows if row["has_left"]]
    changed = [UserId(row["user_id"]) for row in rows if not row["has_left"]]
    return DeviceListChanges(changed, [user for user in left_users if user not in set(changed)])


# For the hub's tick: whom to wake for the rows between two positions.
SELECT_DEVICE_LIST_KEYS: Final = """
    SELECT key, max(position) AS position FROM (
        SELECT 'user:' || user_id AS key, position FROM device_list_changes WHERE position >= $1 AND position < $2
        UNION ALL
        SELECT 'room:' || r.room_id, d.position
        FROM device_list_changes d JOIN memberships m USING (user_id) JOIN rooms r USING (room_nid)
        WHERE d.position >= $1 AND d.position < $2 AND m.membership = 'join'
        UNION ALL
        SELECT 'user:' || signer_id, position FROM signed_users WHERE position >= $1 AND position < $2
    ) AS changed
    GROUP BY key
    LIMIT $3
"""
