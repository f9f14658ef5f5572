"""Events outside the part of a room's graph that this server holds, and finding out which events are where."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu
from storage.append import NewEvent, RoomChanged, event_tuple
from storage.database import Connection
from storage.events import stored_pdu


@dataclass(frozen=True, slots=True)
class KnownEvent:
    """An event that is stored.

    Attributes:
        in_graph: the state before it is known; else it is an outlier.
        rejected: why it failed authorization; None if it did not.
        soft_failed: it was not allowed in the room as it was when it came.
    """

    event_nid: int
    event_id: EventId
    room_nid: int
    in_graph: bool
    rejected: str | None
    soft_failed: bool


SELECT_KNOWN_EVENTS: Final = """
    SELECT event_nid, event_id, room_nid, state_id IS NOT NULL AS in_graph, rejected, soft_failed
    FROM events WHERE event_id = ANY ($1::text[])
"""


async def list_known_events(conn: Connection, event_ids: Collection[EventId]) -> dict[EventId, KnownEvent]:
    """What is known of events, of any room, by their ids; those that are not stored are absent."""
    if not event_ids:
        return {}
    rows = await conn.fetch(SELECT_KNOWN_EVENTS, list(event_ids))
    return {
        EventId(row["event_id"]): KnownEvent(
            event_nid=row["event_nid"],
            event_id=EventId(row["event_id"]),
            room_nid=row["room_nid"],
            in_graph=row["in_graph"],
            rejected=row["rejected"],
            soft_failed=row["soft_failed"],
        )
        for row in rows
    }


@dataclass(frozen=True, slots=True)
class OutlierRow:
    """An event outside the graph, with all that is needed to bring it in.

    Attributes:
        pdu: as it is stored, redacted if it was.
        client_json: its text as clients see it.
    """

    event_nid: int
    revision: int
    pdu: Pdu
    rejected: str | None
    redacted_by: EventId | None
    client_json: str


SELECT_OUTLIERS: Final = """
    SELECT e.event_nid, e.event_id, e.revision, e.rejected, e.redacted_by, e.client_json, e.federation_json,
        r.room_id, r.room_version
    FROM events e JOIN rooms r USING (room_nid)
    WHERE e.event_id = ANY ($1::text[]) AND e.state_id IS NULL
"""


async def find_outlier(conn: Connection, event_id: EventId) -> OutlierRow | None:
    """An event outside the graph; None if it is in the graph or not known."""
    return (await list_outliers(conn, [event_id])).get(event_id)


async def list_outliers(conn: Connection, event_ids: Collection[EventId]) -> dict[EventId, OutlierRow]:
    """Events outside the graph by their ids; those that are in the graph or not known are absent."""
    return {
        EventId(row["event_id"]): OutlierRow(
            event_nid=row["event_nid"],
            revision=row["revision"],
            pdu=stored_pdu(row),
            rejected=row["rejected"],
            redacted_by=None if row["redacted_by"] is None else EventId(row["redacted_by"]),
            client_json=row["client_json"],
        )
        for row in await conn.fetch(SELECT_OUTLIERS, list(event_ids))
    }


SELECT_STORE_OUTLIERS: Final = "SELECT event_id, event_nid, rejected FROM store_outliers($1, $2::new_event[], $3)"


async def store_outliers(
    conn: Connection, room_nid: int, events: Sequence[NewEvent], *, reviewed_redactions: Sequence[int] = ()
) -> dict[EventId, tuple[int, str | None]]:
    """Stores events outside the graph; those that are stored already stay as they are.

    Args:
        conn: to write with.
        room_nid: their room.
        events: each after those of its auth events that are among them.
        reviewed_redactions: the redactions that waited for these events and have been looked at.

    Returns:
        The number of each event, and why it was rejected, as they are stored now.

    Raises:
        RoomChanged: a redaction of one of them has come meanwhile; nothing was written.
    """
    if not events:
        return {}
    tuples = [event_tuple(event) for event in events]
    rows = await conn.fetch(SELECT_STORE_OUTLIERS, room_nid, tuples, list(reviewed_redactions))
    if not rows:
        raise RoomChanged
    return {EventId(row["event_id"]): (row["event_nid"], row["rejected"]) for row in rows}
