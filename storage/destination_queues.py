"""What waits to be sent to other servers: events by room, EDUs that must arrive, and the transaction in flight.

Rows are locked in the order of their keys, whoever writes them, so that two writers never wait for each other.

https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import EventId, ServerName
from storage.database import Connection

EVENTS_PER_ROOM_MAX: Final = 1000
"""So many events of a room wait for a server that answers."""

FAILING_PER_ROOM_MAX: Final = 20
"""So many for one that does not."""

KEPT_PER_ROOM: Final = 10
"""So many, the newest, are left when there were more: from these the server finds the others."""

EDUS_PER_DESTINATION_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """An event that is to be sent to a server."""

    destination: ServerName
    room_nid: int
    event_nid: int


UPSERT_QUEUED_EVENTS: Final = """
    WITH added AS (
        SELECT a.destination, a.room_nid, array_agg(a.event_nid ORDER BY a.event_nid) AS event_nids,
            CASE WHEN d.failing_since_ts IS NULL THEN $4::integer ELSE $5::integer END AS events_max
        FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS a (destination, room_nid, event_nid)
        LEFT JOIN destinations d USING (destination)
        GROUP BY a.destination, a.room_nid, d.failing_since_ts
    )
    INSERT INTO destination_queues AS q (destination, room_nid, event_nids)
    SELECT destination, room_nid, newest_queued(event_nids, events_max, $6) FROM added ORDER BY destination, room_nid
    ON CONFLICT (destination, room_nid) DO UPDATE SET event_nids = newest_queued(
        q.event_nids || excluded.event_nids,
        CASE WHEN EXISTS (
            SELECT FROM destinations d WHERE d.destination = q.destination AND d.failing_since_ts IS NOT NULL
        ) THEN $5 ELSE $4 END,
        $6
    )
"""


async def upsert_queued_events(conn: Connection, events: Sequence[QueuedEvent]) -> None:
    """Queues events, each once for a destination; of too many in a room only the newest are kept."""
    await conn.execute(
        UPSERT_QUEUED_EVENTS,
        [event.destination for event in events],
        [event.room_nid for event in events],
        [event.event_nid for event in events],
        EVENTS_PER_ROOM_MAX,
        FAILING_PER_ROOM_MAX,
        KEPT_PER_ROOM,
    )


# Along the queue's primary key it steps from one destination to the next, without reading the rooms in between.
SELECT_WAITING_DESTINATIONS: Final = """
    WITH RECURSIVE queued (destination) AS (
        (SELECT destination FROM destination_queues ORDER BY destination LIMIT 1)
        UNION ALL
        SELECT (SELECT n.destination FROM destination_queues n WHERE n.destination > queued.destination
            ORDER BY n.destination LIMIT 1)
        FROM queued WHERE queued.destination IS NOT NULL
    ), waiting AS (
        SELECT destination FROM queued WHERE destination IS NOT NULL
        UNION
        SELECT destination FROM destination_transactions
        UNION
        SELECT destination FROM destination_edus
        UNION
        SELECT destination FROM edu_lags
    )
    SELECT destination, d.failing_since_ts IS NOT NULL AS is_failing
    FROM waiting LEFT JOIN destinations d USING (destination)
    WHERE d.retry_at_ts IS NULL OR d.retry_at_ts <= $1
    ORDER BY d.failing_since_ts NULLS FIRST
"""


async def list_waiting_destinations(conn: Connection, *, now_ms: int) -> list[tuple[ServerName, bool]]:
    """The servers that something waits for and that may be asked now, those that answer first; and who does not."""
    rows = await conn.fetch(SELECT_WAITING_DESTINATIONS, now_ms)
    return [(ServerName(row["destination"]), row["is_failing"]) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTransaction:
    """A transaction in flight.

    Attributes:
        event_nids: the events in it, in the order in which they are sent.
        edu_ids: the stored EDUs in it.
    """

    destination: ServerName
    transaction_id: str
    origin_server_ts: int
    event_nids: Sequence[int]
    edu_ids: Sequence[int]


# The oldest events over all rooms are among the rooms whose oldest event is oldest. They are looked for only where no
# transaction is in flight.
SELECT_WAITING: Final = """
    SELECT wanted.destination, t.transaction_id, t.origin_server_ts,
        coalesce(t.event_nids, ARRAY(
            SELECT event_nid FROM (
                SELECT event_nids FROM destination_queues q WHERE q.destination = wanted.destination
                ORDER BY event_nids[1] LIMIT wanted.events_max
            ) AS rooms, unnest(rooms.event_nids[1:wanted.events_max]) AS event_nid
            ORDER BY event_nid LIMIT wanted.events_max
        )) AS event_nids,
        coalesce(t.edu_ids, ARRAY(
            SELECT edu_id FROM destination_edus e WHERE e.destination = wanted.destination
            ORDER BY edu_id LIMIT wanted.edus_max
        )) AS edu_ids
    FROM unnest($1::text[], $2::integer[], $3::integer[]) AS wanted (destination, events_max, edus_max)
    LEFT JOIN destination_transactions t USING (destination)
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits longest for a server: events and stored EDUs, by their numbers."""

    event_nids: Sequence[int]
    edu_ids: Sequence[int]


async def list_waiting(
    conn: Connection, limits: Mapping[ServerName, tuple[int, int]]
) -> dict[ServerName, StoredTransaction | Waiting]:
    """For each of some servers the transaction in flight, or else what waits, at most so many events and EDUs."""
    rows = await conn.fetch(
        SELECT_WAITING,
        list(limits),
        [events_max for events_max, _ in limits.values()],
        [edus_max for _, edus_max in limits.values()],
    )
    found: dict[ServerName, StoredTransaction | Waiting] = {}
    for row in rows:
        destination = ServerName(row["destination"])
        if row["transaction_id"] is None:
            found[destination] = Waiting(row["event_nids"], row["edu_ids"])
            continue
        found[destination] = StoredTransaction(
            destination=destination,
            transaction_id=row["transaction_id"],
            origin_server_ts=row["origin_server_ts"],
            event_nids=row["event_nids"],
            edu_ids=row["edu_ids"],
        )
    return found


INSERT_TRANSACTIONS: Final = """
    INSERT INTO destination_transactions (destination, transaction_id, origin_server_ts, event_nids, edu_ids)
    SELECT destination, transaction_id, origin_server_ts, event_nids::bigint[], edu_ids::bigint[]
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[])
        AS t (destination, transaction_id, origin_server_ts, event_nids, edu_ids)
    ORDER BY destination
    ON CONFLICT (destination) DO NOTHING
    RETURNING destination
"""


async def insert_transactions(conn: Connection, transactions: Sequence[StoredTransaction]) -> set[ServerName]:
    """Stores transactions before they are sent; returns the servers to which none was in flight already."""
    rows = await conn.fetch(
        INSERT_TRANSACTIONS,
        [transaction.destination for transaction in transactions],
        [transaction.transaction_id for transaction in transactions],
        [transaction.origin_server_ts for transaction in transactions],
        [_array(transaction.event_nids) for transaction in transactions],
        [_array(transaction.edu_ids) for transaction in transactions],
    )
    return {ServerName(row["destination"]) for row in rows}


def _array(numbers: Sequence[int]) -> str:
    """An array as text: the database takes no lists of lists of different lengths."""
    return "{" + ",".join(map(str, numbers)) + "}"


DELETE_TRANSACTION: Final = "DELETE FROM destination_transactions WHERE destination = $1 AND transaction_id = $2"


async def delete_transaction(conn: Connection, destination: ServerName, transaction_id: str) -> None:
    """Gives up a transaction; what is in it goes on waiting."""
    await conn.execute(DELETE_TRANSACTION, destination, transaction_id)


SELECT_COMPLETE_TRANSACTIONS: Final = "SELECT complete_transactions($1, $2)"


async def complete_transactions(conn: Connection, done: Mapping[ServerName, str]) -> None:
    """Ends transactions that servers have taken, by their ids: what is in those that are in flight waits no longer."""
    await conn.execute(SELECT_COMPLETE_TRANSACTIONS, list(done), list(done.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEdu:
    """An EDU that must arrive.

    Attributes:
        replace_key: of EDUs with the same type and key only the newest waits; None: each is sent.
        content: a JSON object as text.
    """

    destination: ServerName
    edu_type: str
    content: str
    replace_key: str | None = None


DELETE_REPLACED_EDUS: Final = """
    DELETE FROM destination_edus e
    USING unnest($1::text[], $2::text[], $3::text[]) AS n (destination, edu_type, replace_key)
    WHERE e.destination = n.destination AND e.edu_type = n.edu_type AND e.replace_key = n.replace_key
"""
INSERT_EDUS: Final = """
    INSERT INTO destination_edus (destination, edu_type, replace_key, content, queued_ts)
    SELECT destination, edu_type, replace_key, content, $5
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
        WITH ORDINALITY AS n (destination, edu_type, replace_key, content, number)
    WHERE (SELECT count(*) FROM destination_edus e WHERE e.destination = n.destination) < $6
    ORDER BY number
"""


async def insert_edus(conn: Connection, edus: Sequence[NewEdu], *, now_ms: int) -> None:
    """Queues EDUs in their order, within a transaction; no two of them with the same key for the same server.

    A server that very many wait for gets no more.
    """
    destinations = [edu.destination for edu in edus]
    types = [edu.edu_type for edu in edus]
    keys = [edu.replace_key for edu in edus]
    await conn.execute(DELETE_REPLACED_EDUS, destinations, types, keys)
    contents = [edu.content for edu in edus]
    await conn.execute(INSERT_EDUS, destinations, types, keys, contents, now_ms, EDUS_PER_DESTINATION_MAX)


SELECT_EDUS: Final = "SELECT edu_id, edu_type, content FROM destination_edus WHERE edu_id = ANY ($1::bigint[])"


async def list_edus(conn: Connection, edu_ids: Collection[int]) -> dict[int, tuple[str, str]]:
    """The types and contents (as JSON text) of stored EDUs by their ids; those that were replaced are absent."""
    rows = await conn.fetch(SELECT_EDUS, list(edu_ids))
    return {row["edu_id"]: (row["edu_type"], row["content"]) for row in rows}


# Updates of device lists stay: few of them wait, and a server that misses the last one would never find out.
DELETE_OLD_EDUS: Final = """
    DELETE FROM destination_edus
    WHERE queued_ts < $1 AND edu_type NOT IN ('m.device_list_update', 'm.signing_key_update')
"""


async def delete_old_edus(conn: Connection, *, before_ts: int) -> None:
    """Gives up EDUs that have waited for too long."""
    await conn.execute(DELETE_OLD_EDUS, before_ts)


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationStatus:
    """How a server stands, and what waits for it; times in milliseconds.

    Attributes:
        failing_since_ts: since when there have been nothing but failures; None for one that answers.
        retry_at_ts: before this time nothing is sent to it; 0 for no such time.
        last_success_ts: about when it last answered; 0 if never.
        rooms: rooms with events that wait.
        events: how many events wait, in all of them.
        edus: how many EDUs wait that must arrive.
    """

    destination: ServerName
    failing_since_ts: int | None = None
    retry_at_ts: int = 0
    last_success_ts: int = 0
    rooms: int = 0
    events: int = 0
    edus: int = 0


SELECT_STATUSES: Final = """
    WITH waiting AS (
        SELECT destination, sum(rooms)::bigint AS rooms, sum(events)::bigint AS events, sum(edus)::bigint AS edus
        FROM (
            SELECT destination, count(*) AS rooms, sum(cardinality(event_nids)) AS events, 0 AS edus
            FROM destination_queues WHERE $1::text IS NULL OR destination = $1 GROUP BY destination
            UNION ALL
            SELECT destination, 0, 0, count(*)
            FROM destination_edus WHERE $1::text IS NULL OR destination = $1 GROUP BY destination
        ) AS each_kind
        GROUP BY destination
    )
    SELECT destination, d.failing_since_ts, coalesce(d.retry_at_ts, 0) AS retry_at_ts,
        coalesce(d.last_success_ts, 0) AS last_success_ts,
        coalesce(w.rooms, 0) AS rooms, coalesce(w.events, 0) AS events, coalesce(w.edus, 0) AS edus
    FROM destinations d FULL JOIN waiting w USING (destination)
    WHERE CASE WHEN $1::text IS NULL THEN w.destination IS NOT NULL OR d.failing_since_ts IS NOT NULL
        ELSE destination = $1 END
    ORDER BY destination
"""


async def list_statuses(conn: Connection, destination: ServerName | None = None) -> list[DestinationStatus]:
    """The servers that something waits for or that do not answer, by name; or one, if anything is known of it."""
    return [
        DestinationStatus(**{**row, "destination": ServerName(row["destination"])})
        for row in await conn.fetch(SELECT_STATUSES, destination)
    ]


UPDATE_PAUSES: Final = """
    UPDATE destinations SET retry_at_ts = 0
    WHERE retry_at_ts > $2 AND ($1::text IS NULL OR destination = $1)
    RETURNING destination
"""


async def end_pauses(conn: Connection, destination: ServerName | None, *, now_ms: int) -> list[ServerName]:
    """Has a server, or all (None), tried again at once; returns those that would have been left alone until later."""
    return [ServerName(row["destination"]) for row in await conn.fetch(UPDATE_PAUSES, destination, now_ms)]


@dataclass(frozen=True, slots=True)
class QueueTotals:
    """How much waits: servers that fail, rows of the queues, and stored EDUs."""

    failing: int
    rows: int
    edus: int


SELECT_QUEUE_TOTALS: Final = """
    SELECT (SELECT count(*) FROM destinations WHERE failing_since_ts IS NOT NULL) AS failing,
        (SELECT count(*) FROM destination_queues) AS rows,
        (SELECT count(*) FROM destination_edus) AS edus
"""


async def count_queues(conn: Connection) -> QueueTotals:
    """How much waits over all."""
    row = await conn.fetchrow(SELECT_QUEUE_TOTALS)
    assert row is not None, "There is always one row"
    return QueueTotals(row["failing"], row["rows"], row["edus"])


SELECT_QUEUED_EVENT_IDS: Final = """
    SELECT e.event_id FROM destination_queues q, unnest(q.event_nids) AS nid JOIN events e ON e.event_nid = nid
    WHERE q.destination = $1 ORDER BY nid LIMIT $2
"""


async def list_queued_event_ids(conn: Connection, destination: ServerName, *, limit: int) -> list[EventId]:
    """The ids of the events that wait longest for a server."""
    return [EventId(row["event_id"]) for row in await conn.fetch(SELECT_QUEUED_EVENT_IDS, destination, limit)]
