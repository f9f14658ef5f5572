"""Collecting states that nothing refers to: a walk over all snapshots that marks them, and their removal later.

`migrations/0020_state_collection.up.sql` tells why it takes two steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from storage.database import Connection

# By the index, row by row, whatever the planner thinks of it.
_IS_IN_USE: Final = """
    EXISTS (SELECT FROM rooms r WHERE r.room_nid = s.room_nid AND r.state_id = s.state_id OFFSET 0)
    OR EXISTS (SELECT FROM state_history h WHERE h.state_id = s.state_id OFFSET 0)
    OR EXISTS (SELECT FROM events e WHERE e.state_id = s.state_id OFFSET 0)
    OR EXISTS (
        SELECT FROM state_snapshots other
        WHERE other.parent_id = s.state_id AND other.unreferenced_since IS NULL OFFSET 0
    )
"""

SELECT_WALK: Final = """
    SELECT below_state_id, started_at < clock_timestamp() - $1 * interval '1 millisecond' AS is_due FROM state_walk
"""
START_WALK: Final = """
    INSERT INTO state_walk (below_state_id, started_at)
    VALUES ((SELECT coalesce(max(state_id), 0) + 1 FROM state_snapshots), clock_timestamp())
    ON CONFLICT (is_only) DO UPDATE SET below_state_id = excluded.below_state_id, started_at = excluded.started_at
    RETURNING below_state_id
"""


async def continue_walk(conn: Connection, *, interval_ms: int) -> int:
    """The snapshot below which the walk goes on; 0 while it is at its end and has not begun `interval_ms` ago."""
    row = await conn.fetchrow(SELECT_WALK, interval_ms)
    if row is not None and (row["below_state_id"] or not row["is_due"]):
        return int(row["below_state_id"])
    return int(await conn.fetchval(START_WALK))


ADVANCE_WALK: Final = "UPDATE state_walk SET below_state_id = $1"


async def advance_walk(conn: Connection, below_state_id: int) -> None:
    """Notes how far the walk has come."""
    await conn.execute(ADVANCE_WALK, below_state_id)


MARK_UNREFERENCED: Final = f"""
    WITH page AS MATERIALIZED (
        SELECT state_id FROM state_snapshots WHERE state_id < $1 ORDER BY state_id DESC LIMIT $2
    ), marked AS (
        UPDATE state_snapshots s SET unreferenced_since = clock_timestamp()
        WHERE s.state_id IN (SELECT state_id FROM page) AND s.unreferenced_since IS NULL AND NOT ({_IS_IN_USE})
        RETURNING s.state_id
    )
    SELECT coalesce(min(state_id), 0) AS lowest, (SELECT count(*) FROM marked) AS marked FROM page
"""  # noqa: S608 - a constant text


async def mark_unreferenced(conn: Connection, *, below_state_id: int, limit: int) -> tuple[int, int]:
    """Marks, among the next snapshots below one, those to which nothing refers but marked ones.

    Returns:
        The lowest snapshot that was looked at (0: there are none), and how many were marked.
    """
    row = await conn.fetchrow(MARK_UNREFERENCED, below_state_id, limit)
    assert row is not None, "An aggregate always has a row"
    return row["lowest"], row["marked"]


SELECT_DUE: Final = """
    SELECT room_nid, array_agg(state_id) AS state_ids
    FROM (
        SELECT room_nid, state_id FROM state_snapshots
        WHERE unreferenced_since < clock_timestamp() - $1 * interval '1 millisecond'
        ORDER BY unreferenced_since
        LIMIT $2
    ) AS due
    GROUP BY room_nid
"""


async def list_due(conn: Connection, *, age_ms: int, limit: int) -> Mapping[int, Sequence[int]]:
    """Snapshots that were marked at least `age_ms` ago, by room."""
    return {row["room_nid"]: row["state_ids"] for row in await conn.fetch(SELECT_DUE, age_ms, limit)}


@dataclass(frozen=True, slots=True)
class Collected:
    """What has become of snapshots that were due: removed, or in use after all."""

    removed: int = 0
    spared: int = 0


# Nobody can write in a room that is no more.
LOCK_ROOM: Final = """
    SELECT EXISTS (SELECT FROM rooms WHERE room_nid = $1 FOR NO KEY UPDATE SKIP LOCKED)
        OR NOT EXISTS (SELECT FROM rooms WHERE room_nid = $1)
"""
DELETE_UNREFERENCED: Final = f"""
    DELETE FROM state_snapshots s
    WHERE s.state_id = ANY ($1::bigint[])
        AND s.unreferenced_since < clock_timestamp() - $2 * interval '1 millisecond'
        AND NOT EXISTS (SELECT FROM state_snapshots other WHERE other.parent_id = s.state_id OFFSET 0)
        AND NOT ({_IS_IN_USE})
"""  # noqa: S608 - a constant text
SPARE_REFERENCED: Final = f"""
    UPDATE state_snapshots s SET unreferenced_since = NULL
    WHERE s.state_id = ANY ($1::bigint[]) AND s.unreferenced_since IS NOT NULL AND ({_IS_IN_USE})
"""  # noqa: S608 - a constant text


async def collect(conn: Connection, room_nid: int, state_ids: Sequence[int], *, age_ms: int) -> Collected:
    """Removes those of a room's marked snapshots to which still nothing refers, in a transaction.

    Nothing happens while somebody else holds the lock of the room's row.
    """
    if not await conn.fetchval(LOCK_ROOM, room_nid):
        return Collected()
    removed = count = _count(await conn.execute(DELETE_UNREFERENCED, state_ids, age_ms))
    # One that others differ from can go only after them.
    while count and removed < len(state_ids):
        count = _count(await conn.execute(DELETE_UNREFERENCED, state_ids, age_ms))
        removed += count
    spared = _count(await conn.execute(SPARE_REFERENCED, state_ids)) if removed < len(state_ids) else 0
    return Collected(removed, spared)


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
