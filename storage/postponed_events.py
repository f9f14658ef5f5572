"""Events that cannot be taken yet, for nobody can be asked for what they refer to; they are tried again."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.canonical_json import encode_canonical, parse_json
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import room_version_named
from storage.database import Connection

POSTPONED_OF_ROOM_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class PostponedEvent:
    """An event to be tried again, and who has sent it."""

    room_nid: int
    origin: ServerName
    pdu: Pdu


INSERT_POSTPONED: Final = """
    INSERT INTO postponed_events (room_nid, event_id, origin, event, retry_at_ts)
    SELECT $1, wanted.event_id, $3, wanted.event, $5
    FROM unnest($2::text[], $4::text[]) WITH ORDINALITY AS wanted (event_id, event, number)
    WHERE (SELECT count(*) FROM postponed_events WHERE room_nid = $1) + wanted.number <= $6
    ON CONFLICT DO NOTHING
"""


async def insert_postponed(
    conn: Connection, room_nid: int, origin: ServerName, events: Sequence[Pdu], *, retry_at_ts: int
) -> None:
    """Notes events of a room that are to be tried again at a time (milliseconds); not more than a room may have."""
    ids = [pdu.event_id for pdu in events]
    texts = [encode_canonical(pdu.json).decode() for pdu in events]
    await conn.execute(INSERT_POSTPONED, room_nid, ids, origin, texts, retry_at_ts, POSTPONED_OF_ROOM_MAX)


SELECT_DUE: Final = """
    SELECT p.room_nid, p.event_id, p.origin, p.event, r.room_id, r.room_version
    FROM postponed_events p JOIN rooms r USING (room_nid)
    WHERE p.retry_at_ts <= $1
    ORDER BY p.retry_at_ts
    LIMIT $2
"""


async def list_due_events(conn: Connection, *, now_ms: int, limit: int) -> list[PostponedEvent]:
    """Events that are to be tried now."""
    rows = await conn.fetch(SELECT_DUE, now_ms, limit)
    return [
        PostponedEvent(
            row["room_nid"],
            ServerName(row["origin"]),
            Pdu.trusted(
                parse_json(row["event"]),
                EventId(row["event_id"]),
                room_version_named(row["room_version"]),
                RoomId(row["room_id"]),
            ),
        )
        for row in rows
    ]


DELETE_POSTPONED: Final = "DELETE FROM postponed_events WHERE room_nid = $1 AND event_id = ANY ($2::text[])"


async def delete_postponed(conn: Connection, room_nid: int, event_ids: Collection[EventId]) -> None:
    """Forgets events that are done with."""
    await conn.execute(DELETE_POSTPONED, room_nid, list(event_ids))


UPDATE_POSTPONED: Final = """
    UPDATE postponed_events SET failures = failures + 1,
        retry_at_ts = $3::bigint + least($4::bigint * (1 << least(failures, 20)), $5::bigint)
    WHERE room_nid = $1 AND event_id = ANY ($2::text[])
"""
DELETE_HOPELESS: Final = """
    DELETE FROM postponed_events WHERE room_nid = $1 AND event_id = ANY ($2::text[]) AND failures >= $3
"""


async def postpone_again(
    conn: Connection,
    room_nid: int,
    event_ids: Collection[EventId],
    *,
    now_ms: int,
    first_pause_ms: int,
    pause_ms_max: int,
    failures_max: int,
) -> None:
    """Has events tried again after a pause, each time twice as long; those that have failed too often are forgotten."""
    await conn.execute(DELETE_HOPELESS, room_nid, list(event_ids), failures_max)
    await conn.execute(UPDATE_POSTPONED, room_nid, list(event_ids), now_ms, first_pause_ms, pause_ms_max)
