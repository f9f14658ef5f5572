"""How much space the database takes: by table exactly, by room by a sample.

Rows do not say how large they are, and reading all of them would take hours where it matters. So of each table at most
`SAMPLE_PAGES` pages are read, spread over it; every sampled row has a weight (the bytes of its long columns and
`ROW_BYTES` for the rest), and the table's bytes, indexes included, are shared among the rooms by what their rows weigh.
A table that is smaller than the sample is read whole.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import RoomId
from storage.database import Connection, Row

SAMPLE_PAGES: Final = 4096
"""32 MiB of each table."""
ROW_BYTES: Final = 200
"""What a row takes besides its long columns: header, short columns, entries in indexes."""

SELECT_DATABASE_BYTES: Final = "SELECT pg_database_size(current_database())"


async def read_database_bytes(conn: Connection) -> int:
    """The bytes of the whole database on disk, the catalogue included, the write-ahead log not."""
    return int(await conn.fetchval(SELECT_DATABASE_BYTES))


@dataclass(frozen=True, slots=True)
class TableSize:
    """What a table takes, in bytes, and how many rows it has, as the statistics believe.

    Attributes:
        heap_bytes: the rows, with the maps of free space and visibility.
        index_bytes: all indexes.
        toast_bytes: long values that are kept outside of the rows.
        live_rows: rows that can be seen.
        dead_rows: rows that wait to be vacuumed.
    """

    table: str
    heap_bytes: int
    index_bytes: int
    toast_bytes: int
    live_rows: int
    dead_rows: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.heap_bytes + self.index_bytes + self.toast_bytes


SELECT_TABLE_SIZES: Final = """
    SELECT c.relname AS table_name,
        pg_table_size(c.oid) - sizes.toast_bytes AS heap_bytes,
        pg_indexes_size(c.oid) AS index_bytes,
        sizes.toast_bytes,
        coalesce(nullif(s.n_live_tup, 0), greatest(c.reltuples, 0)::bigint) AS live_rows,
        coalesce(s.n_dead_tup, 0) AS dead_rows
    FROM pg_class c
    LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
    CROSS JOIN LATERAL (
        SELECT CASE WHEN c.reltoastrelid = 0 THEN 0 ELSE pg_total_relation_size(c.reltoastrelid) END AS toast_bytes
    ) AS sizes
    WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
    ORDER BY pg_total_relation_size(c.oid) DESC, c.relname
"""


async def list_table_sizes(conn: Connection) -> list[TableSize]:
    """Every table, the largest first."""
    return [
        TableSize(
            table=row["table_name"],
            heap_bytes=row["heap_bytes"],
            index_bytes=row["index_bytes"],
            toast_bytes=row["toast_bytes"],
            live_rows=row["live_rows"],
            dead_rows=row["dead_rows"],
        )
        for row in await conn.fetch(SELECT_TABLE_SIZES)
    ]


@dataclass(frozen=True, slots=True)
class RoomSize:
    """What a room takes, in bytes, and how many events it has, all estimated.

    Attributes:
        room_id: the room.
        name: its name, if it has one.
        events: how many events are stored.
        event_bytes: these events, with their indexes.
        state_bytes: the states that it has had and has, and who is in it.
        media_bytes: files that its events show, each once for the room; they lie outside of the database.
    """

    room_id: RoomId
    name: str | None
    events: int
    event_bytes: int
    state_bytes: int
    media_bytes: int


# How much of each table the sample is, in percent; all of an empty one.
SELECT_SHARES: Final = """
    SELECT c.relname AS table_name, pg_total_relation_size(c.oid) AS total_bytes,
        100.0 * least(1.0, $2::float8 * current_setting('block_size')::float8 / greatest(pg_relation_size(c.oid), 1))
            AS percentage
    FROM pg_class c
    WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace AND c.relname = ANY ($1::text[])
"""
SELECT_SAMPLED_EVENTS: Final = """
    SELECT room_nid, count(*) AS sampled,
        sum($2 + pg_column_size(client_json) + pg_column_size(federation_json)) AS weight
    FROM events TABLESAMPLE SYSTEM ($1) REPEATABLE (0)
    GROUP BY room_nid
"""
SELECT_SAMPLED_STATES: Final = """
    SELECT room_nid, count(*) AS sampled, sum($2 + pg_column_size(slot_ids) + pg_column_size(event_nids)) AS weight
    FROM state_snapshots TABLESAMPLE SYSTEM ($1) REPEATABLE (0)
    GROUP BY room_nid
"""
SELECT_SAMPLED_CURRENT_STATE: Final = """
    SELECT room_nid, count(*) AS sampled, count(*) * $2::bigint AS weight
    FROM current_state TABLESAMPLE SYSTEM ($1) REPEATABLE (0)
    GROUP BY room_nid
"""
SELECT_SAMPLED_MEMBERSHIPS: Final = """
    SELECT room_nid, count(*) AS sampled, count(*) * $2::bigint AS weight
    FROM memberships TABLESAMPLE SYSTEM ($1) REPEATABLE (0)
    GROUP BY room_nid
"""
_STATE_STATEMENTS: Final = {
    "state_snapshots": SELECT_SAMPLED_STATES,
    "current_state": SELECT_SAMPLED_CURRENT_STATE,
    "memberships": SELECT_SAMPLED_MEMBERSHIPS,
}

SELECT_SAMPLED_MEDIA: Final = """
    SELECT used.room_nid, sum(coalesce(r.size_bytes, l.size_bytes, 0))::bigint AS size_bytes
    FROM (
        SELECT DISTINCT room_nid, server_name, media_id
        FROM media_events TABLESAMPLE SYSTEM ($1) REPEATABLE (0)
        WHERE redacted_ts IS NULL
    ) AS used
    LEFT JOIN remote_media r USING (server_name, media_id)
    LEFT JOIN local_media l USING (media_id)
    WHERE used.room_nid = ANY ($2::integer[])
    GROUP BY used.room_nid
"""
SELECT_ROOM_NAMES: Final = """
    SELECT room_nid, r.room_id, s.name FROM rooms r LEFT JOIN room_summaries s USING (room_nid)
    WHERE room_nid = ANY ($1::integer[])
"""


async def list_largest_rooms(conn: Connection, *, limit: int, sample_pages: int = SAMPLE_PAGES) -> list[RoomSize]:
    """The rooms that take most of the database, the largest first; how that is estimated is told above."""
    tables = ["events", *_STATE_STATEMENTS, "media_events"]
    shares = {row["table_name"]: row for row in await conn.fetch(SELECT_SHARES, tables, float(sample_pages))}
    events: Counter[int] = Counter()
    event_bytes: Counter[int] = Counter()
    state_bytes: Counter[int] = Counter()
    sampled = await conn.fetch(SELECT_SAMPLED_EVENTS, shares["events"]["percentage"], ROW_BYTES)
    for row in sampled:
        events[row["room_nid"]] = round(row["sampled"] * 100 / shares["events"]["percentage"])
    event_bytes.update(_divided(shares["events"]["total_bytes"], sampled))
    for table, statement in _STATE_STATEMENTS.items():
        sampled = await conn.fetch(statement, shares[table]["percentage"], ROW_BYTES)
        state_bytes.update(_divided(shares[table]["total_bytes"], sampled))
    largest = [room_nid for room_nid, _ in (event_bytes + state_bytes).most_common(limit)]
    percentage = shares["media_events"]["percentage"]
    media_bytes = {
        row["room_nid"]: round(row["size_bytes"] * 100 / percentage)
        for row in await conn.fetch(SELECT_SAMPLED_MEDIA, percentage, largest)
    }
    rooms = {row["room_nid"]: row for row in await conn.fetch(SELECT_ROOM_NAMES, largest)}
    return [
        RoomSize(
            room_id=RoomId(rooms[room_nid]["room_id"]),
            name=rooms[room_nid]["name"],
            events=events[room_nid],
            event_bytes=event_bytes[room_nid],
            state_bytes=state_bytes[room_nid],
            media_bytes=media_bytes.get(room_nid, 0),
        )
        for room_nid in largest
        if room_nid in rooms
    ]


def _divided(total_bytes: int, sampled: Sequence[Row]) -> dict[int, int]:
    """The bytes of a table by room, according to what the sampled rows weigh."""
    weight = sum(row["weight"] for row in sampled)
    return {row["room_nid"]: round(total_bytes * float(row["weight"] / weight)) for row in sampled}
