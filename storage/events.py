"""Events as they are stored: what clients see of them, what else servers exchange, and what this server knows of them.

Only `append.py` writes events.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from homeserver.core.canonical_json import parse_json
from homeserver.core.client_event import federation_event
from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import room_version_named
from storage.bounded_cache import BoundedCache
from storage.database import Connection, Row


class StoredEvent(NamedTuple):
    """An event and what this server knows of it.

    A tuple, for syncs read thousands of them, and nothing else is made as fast. Its members are the columns of the view
    `stored_events`.

    Attributes:
        event_nid: the event inside the database; larger means stored later.
        position: where it stands in the stream; None if it is not streamed.
        topological: where it stands in the room's history, together with `event_nid`; None if it has no place there.
        state_id: the snapshot of the state before it; None if that is not known.
        rejected: why it failed authorization; None if it did not.
        redacted_by: the event that redacted it.
        thread_root: the root of the thread that it belongs to.
        device_id: the device that sent it with `transaction_id`.
        push_actions_id: what it does by default for those who are joined; see `push_actions`.
        revision: raised by every change of what is said here, for example a redaction.
        client_json: the event as clients see it, redacted if it was. Its last member is `unsigned`.
    """

    event_nid: int
    event_id: EventId
    room_nid: int
    room_id: RoomId
    position: int | None
    topological: int | None
    state_id: int | None
    depth: int
    origin_server_ts: int
    type: str
    state_key: str | None
    sender: UserId
    rejected: str | None
    soft_failed: bool
    redacted_by: EventId | None
    thread_root: EventId | None
    device_id: str | None
    transaction_id: str | None
    push_actions_id: int | None
    revision: int
    client_json: str

    @property
    def is_accepted(self) -> bool:
        """Whether clients may be shown the event at all."""
        return self.rejected is None and not self.soft_failed

    @property
    def content(self) -> Mapping[str, Any]:
        """The content, read from the JSON text at each call."""
        content: Mapping[str, Any] = orjson.loads(self.client_json)["content"]
        return content


_COLUMNS_BEHIND_ROOM: Final = """position, topological, state_id, depth, origin_server_ts, type, state_key, sender,
    rejected, soft_failed, redacted_by, thread_root, device_id, transaction_id, push_actions_id, revision,
    client_json"""

EVENT_COLUMNS: Final = f"""event_nid, event_id, room_nid,
    (SELECT room_id FROM rooms WHERE rooms.room_nid = events.room_nid) AS room_id, {_COLUMNS_BEHIND_ROOM}"""  # noqa: S608 - a constant list of columns
"""What `stored_event` reads, for statements over `events`; the view `stored_events` has the same columns."""

EVENT_COLUMNS_IN_ROOM: Final = f"event_nid, event_id, room_nid, in_room.room_id, {_COLUMNS_BEHIND_ROOM}"
"""The same, for statements that have found the room's id for many events, as a column of `in_room`."""

_COLUMNS: Final = len(StoredEvent._fields)


def stored_event(row: Row) -> StoredEvent:
    """Reads a row that begins with the columns of the view `stored_events`, in their order."""
    (
        event_nid,
        event_id,
        room_nid,
        room_id,
        position,
        topological,
        state_id,
        depth,
        origin_server_ts,
        event_type,
        state_key,
        sender,
        rejected,
        soft_failed,
        redacted_by,
        thread_root,
        device_id,
        transaction_id,
        push_actions_id,
        revision,
        client_json,
    ) = row[:_COLUMNS]
    return StoredEvent(
        event_nid,
        EventId(event_id),
        room_nid,
        RoomId(room_id),
        position,
        topological,
        state_id,
        depth,
        origin_server_ts,
        event_type,
        state_key,
        UserId(sender),
        rejected,
        soft_failed,
        None if redacted_by is None else EventId(redacted_by),
        None if thread_root is None else EventId(thread_root),
        device_id,
        transaction_id,
        push_actions_id,
        revision,
        client_json,
    )


SELECT_EVENT: Final = "SELECT * FROM stored_events WHERE event_id = $1"


async def find_event(conn: Connection, event_id: EventId) -> StoredEvent | None:
    """An event by its id, also a rejected one; None if it is not known."""
    row = await conn.fetchrow(SELECT_EVENT, event_id)
    return None if row is None else stored_event(row)


SELECT_EVENTS_BY_ID: Final = "SELECT * FROM stored_events WHERE event_id = ANY ($1::text[])"


async def list_events_by_id(conn: Connection, event_ids: Collection[EventId]) -> dict[EventId, StoredEvent]:
    """Events by their ids, also rejected ones; unknown ones are absent."""
    events = [stored_event(row) for row in await conn.fetch(SELECT_EVENTS_BY_ID, list(event_ids))]
    return {event.event_id: event for event in events}


SELECT_EVENTS: Final = "SELECT * FROM stored_events WHERE event_nid = ANY ($1::bigint[]) ORDER BY event_nid"


async def list_events(conn: Connection, event_nids: Collection[int]) -> list[StoredEvent]:
    """Events by their numbers, in the order of their arrival; unknown ones are absent."""
    if not event_nids:
        return []
    return [stored_event(row) for row in await conn.fetch(SELECT_EVENTS, list(event_nids))]


SELECT_EVENTS_UNLESS_KNOWN: Final = """
    SELECT changed.*, e.event_nid AS wanted_nid, known.event_nid IS NOT NULL AS is_known
    FROM events e
    LEFT JOIN unnest($2::bigint[], $3::integer[]) AS known (event_nid, revision) USING (event_nid, revision)
    LEFT JOIN stored_events changed ON changed.event_nid = e.event_nid AND known.event_nid IS NULL
    WHERE e.event_nid = ANY ($1::bigint[])
    ORDER BY e.event_nid
"""


class EventCache:
    """Loads events and keeps them in memory. What is in memory is used only if its revision is still the stored one."""

    def __init__(self, *, size_bytes_max: int = 64 * 1024 * 1024) -> None:
        """Starts with nothing in memory."""
        self._cache: BoundedCache[int, StoredEvent] = BoundedCache(
            "events", weight_max=size_bytes_max, weigh=lambda event: 1000 + len(event.client_json), bytes_each=1
        )

    async def load(self, conn: Connection, event_nids: Collection[int]) -> Sequence[StoredEvent]:
        """Events by their numbers, in the order of their arrival; unknown ones are absent.

        There is always one statement, but the text of an event comes over only once.
        """
        if not event_nids:
            return []
        known = {event_nid: event for event_nid in event_nids if (event := self._cache.get(event_nid)) is not None}
        rows = await conn.fetch(
            SELECT_EVENTS_UNLESS_KNOWN, list(event_nids), list(known), [event.revision for event in known.values()]
        )
        events = []
        for row in rows:
            if row["is_known"]:
                event = known[row["wanted_nid"]]
            else:
                event = stored_event(row)
                self._cache.put(event.event_nid, event)
            events.append(event)
        return events


SELECT_FEDERATION_EVENTS: Final = """
    SELECT e.event_nid, e.event_id, e.client_json, e.federation_json, r.room_id, r.room_version
    FROM events e JOIN rooms r USING (room_nid)
    WHERE e.event_nid = ANY ($1::bigint[])
"""


async def list_pdus(conn: Connection, event_nids: Collection[int]) -> dict[int, Pdu]:
    """Events as servers exchange them, by their numbers; unknown ones are absent."""
    if not event_nids:
        return {}
    rows = await conn.fetch(SELECT_FEDERATION_EVENTS, list(event_nids))
    return {row["event_nid"]: stored_pdu(row) for row in rows}


def stored_pdu(row: Row) -> Pdu:
    """Reads a row with event_id, client_json and federation_json of an event, and room_id and room_version."""
    room_version = room_version_named(row["room_version"])
    # The old room versions allow integers that the fast parser would read as floats.
    parse = orjson.loads if room_version.strict_canonical_json else parse_json
    federation_form = federation_event(parse(row["client_json"]), parse(row["federation_json"]), room_version)
    return Pdu.trusted(federation_form, EventId(row["event_id"]), room_version, RoomId(row["room_id"]))


SELECT_EVENT_OF_TRANSACTION: Final = """
    SELECT event_id FROM events
    WHERE sender = $1 AND device_id = $2 AND room_nid = $3 AND transaction_id = $4
        AND (type = 'm.room.redaction') = $5
"""


async def find_event_of_transaction(
    conn: Connection, *, sender: UserId, device_id: str, room_nid: int, transaction_id: str, is_redaction: bool
) -> EventId | None:
    """The event that a device made by a request with a transaction id; None if there was none."""
    event_id = await conn.fetchval(
        SELECT_EVENT_OF_TRANSACTION, sender, device_id, room_nid, transaction_id, is_redaction
    )
    return None if event_id is None else EventId(event_id)


SELECT_SUCCESSORS_IN_SLOTS: Final = """
    SELECT s.* FROM unnest($1::bigint[]) AS wanted (event_nid) JOIN events e USING (event_nid)
    CROSS JOIN LATERAL (
        SELECT n.event_nid FROM events n
        WHERE n.room_nid = e.room_nid AND n.type = e.type AND n.state_key = e.state_key AND n.event_nid > e.event_nid
        ORDER BY n.event_nid
        LIMIT 20
    ) AS successor
    JOIN stored_events s ON s.event_nid = successor.event_nid
    ORDER BY s.event_nid
"""


async def list_successors(conn: Connection, event_nids: Collection[int]) -> list[StoredEvent]:
    """The next few events at the same place of the room's state as each of some events, in the order of arrival."""
    rows = await conn.fetch(SELECT_SUCCESSORS_IN_SLOTS, list(event_nids))
    return [stored_event(row) for row in rows]


SELECT_REDACTED_BY: Final = """
    SELECT * FROM stored_events WHERE redacted_by = ANY ($1::text[]) LIMIT 20 * cardinality($1)
"""


async def list_redacted_by(conn: Connection, event_ids: Collection[EventId]) -> list[StoredEvent]:
    """The event (or few, by several servers' mistakes) that each of some others has redacted."""
    return [stored_event(row) for row in await conn.fetch(SELECT_REDACTED_BY, list(event_ids))]


SELECT_EVENT_IDS: Final = "SELECT event_nid, event_id FROM events WHERE event_nid = ANY ($1::bigint[])"


async def list_event_ids(conn: Connection, event_nids: Collection[int]) -> dict[int, EventId]:
    """The ids of events by their numbers."""
    rows = await conn.fetch(SELECT_EVENT_IDS, list(event_nids))
    return {row["event_nid"]: EventId(row["event_id"]) for row in rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphEvent:
    """An event as those who judge others by it need it, and those who find out states.

    Attributes:
        state_id: the snapshot of the state before it; None if it stands outside the graph.
        rejected: why it failed authorization; None if it did not.
        soft_failed: it was not allowed in the room as it was when it came.
        size_bytes: of its texts.
    """

    event_nid: int
    pdu: Pdu
    state_id: int | None
    rejected: str | None
    soft_failed: bool
    size_bytes: int

    @property
    def type(self) -> str:
        """Its type."""
        return self.pdu.type

    @property
    def state_key(self) -> str | None:
        """Its state key; None if it is not a state event."""
        return self.pdu.state_key


SELECT_GRAPH_EVENTS: Final = """
    SELECT e.event_nid, e.event_id, e.state_id, e.rejected, e.soft_failed, e.client_json, e.federation_json,
        r.room_id, r.room_version
    FROM events e JOIN rooms r USING (room_nid)
    WHERE e.event_nid = ANY ($1::bigint[])
"""


async def list_graph_events(conn: Connection, event_nids: Collection[int]) -> list[GraphEvent]:
    """Events by their numbers, in no order; unknown ones are absent."""
    return [_graph_event(row) for row in await conn.fetch(SELECT_GRAPH_EVENTS, list(event_nids))]


def _graph_event(row: Row) -> GraphEvent:
    return GraphEvent(
        event_nid=row["event_nid"],
        pdu=stored_pdu(row),
        state_id=row["state_id"],
        rejected=row["rejected"],
        soft_failed=row["soft_failed"],
        size_bytes=len(row["client_json"]) + len(row["federation_json"]),
    )


# What is asked for comes first, so the limit cuts only ancestors.
SELECT_AUTH_CHAINS: Final = """
    WITH RECURSIVE chain (event_nid) AS (
        SELECT event_nid FROM events WHERE event_id = ANY ($1::text[])
        UNION
        SELECT cited.event_nid
        FROM chain JOIN events e USING (event_nid), unnest(e.auth_event_nids) AS cited (event_nid)
        WHERE $2
    ), bounded AS (SELECT event_nid FROM chain LIMIT $3)
    SELECT e.event_nid, e.event_id, e.state_id, e.rejected, e.soft_failed, e.client_json, e.federation_json,
        r.room_id, r.room_version
    FROM bounded JOIN events e USING (event_nid) JOIN rooms r USING (room_nid)
"""
_AUTH_CHAIN_MAX: Final = 1000


async def list_auth_chains(
    conn: Connection, event_ids: Collection[EventId], *, with_ancestors: bool
) -> list[GraphEvent]:
    """Events by their ids, and, if wanted, a bounded part of their auth chains; unknown ones are absent."""
    limit = len(event_ids) + (_AUTH_CHAIN_MAX if with_ancestors else 0)
    rows = await conn.fetch(SELECT_AUTH_CHAINS, list(event_ids), with_ancestors, limit)
    return [_graph_event(row) for row in rows]


SELECT_EVENT_NIDS: Final = "SELECT event_nid, event_id FROM events WHERE event_id = ANY ($1::text[])"


async def find_event_nids(conn: Connection, event_ids: Collection[EventId]) -> dict[EventId, int]:
    """The numbers of events by their ids; unknown ones are absent."""
    rows = await conn.fetch(SELECT_EVENT_NIDS, list(event_ids))
    return {EventId(row["event_id"]): row["event_nid"] for row in rows}
