"""Whether other servers can be reached: since when they have not been, and when to try again."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import ServerName
from storage.database import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationRow:
    """How a server stands; all times in milliseconds.

    Attributes:
        failing_since_ts: since when there have been nothing but failures; None for one that answers.
        retry_at_ts: before this time nothing is asked of it.
        backoff_ms: the pause that the next failure makes longer.
        last_success_ts: about when it last answered; 0 if never.
    """

    failing_since_ts: int | None = None
    retry_at_ts: int = 0
    backoff_ms: int = 0
    last_success_ts: int = 0


SELECT_DESTINATION: Final = """
    SELECT failing_since_ts, retry_at_ts, backoff_ms, last_success_ts FROM destinations WHERE destination = $1
"""


async def find_destination(conn: Connection, destination: ServerName) -> DestinationRow | None:
    """How a server stands; None for one that was never called."""
    row = await conn.fetchrow(SELECT_DESTINATION, destination)
    return None if row is None else DestinationRow(**row)


UPSERT_SUCCESS: Final = """
    INSERT INTO destinations (destination, last_success_ts) VALUES ($1, $2)
    ON CONFLICT (destination) DO UPDATE
        SET failing_since_ts = NULL, retry_at_ts = 0, backoff_ms = 0, last_success_ts = $2
"""


async def note_success(conn: Connection, destination: ServerName, *, now_ms: int) -> None:
    """Says that a server has answered."""
    await conn.execute(UPSERT_SUCCESS, destination, now_ms)


UPSERT_FAILURE: Final = """
    INSERT INTO destinations (destination, failing_since_ts, retry_at_ts, backoff_ms)
    VALUES ($1, $2::bigint, $2 + ($3::bigint * $6::double precision)::bigint, $3)
    ON CONFLICT (destination) DO UPDATE SET
        failing_since_ts = coalesce(destinations.failing_since_ts, $2),
        backoff_ms = CASE
            WHEN $2 < destinations.retry_at_ts THEN destinations.backoff_ms
            WHEN $2 - destinations.failing_since_ts >= $7::bigint THEN $8::bigint
            ELSE least(greatest(destinations.backoff_ms * $5::bigint, $3), $4::bigint)
        END,
        retry_at_ts = CASE
            WHEN $2 < destinations.retry_at_ts THEN destinations.retry_at_ts
            WHEN $2 - destinations.failing_since_ts >= $7 THEN $2 + ($8 * $6)::bigint
            ELSE $2 + (least(greatest(destinations.backoff_ms * $5, $3), $4) * $6)::bigint
        END
    RETURNING failing_since_ts, retry_at_ts, backoff_ms, last_success_ts
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffSteps:
    """How pauses grow, in milliseconds: from the first by a factor to the longest; one of its own for the long dead."""

    first_ms: int
    factor: int
    longest_ms: int
    dead_after_ms: int
    dead_ms: int


async def note_failure(
    conn: Connection, destination: ServerName, *, now_ms: int, steps: BackoffSteps, jitter: float
) -> DestinationRow:
    """Says that a server has not answered; what fails during a pause does not make it longer.

    Args:
        conn: a connection.
        destination: the server.
        now_ms: the time.
        steps: how long the pause becomes.
        jitter: about 1; the pause is multiplied by it.
    """
    row = await conn.fetchrow(
        UPSERT_FAILURE,
        destination,
        now_ms,
        steps.first_ms,
        steps.longest_ms,
        steps.factor,
        jitter,
        steps.dead_after_ms,
        steps.dead_ms,
    )
    assert row is not None
    return DestinationRow(**row)


UPSERT_PAUSE: Final = """
    INSERT INTO destinations (destination, retry_at_ts) VALUES ($1, $2)
    ON CONFLICT (destination) DO UPDATE SET retry_at_ts = greatest(destinations.retry_at_ts, $2)
    RETURNING failing_since_ts, retry_at_ts, backoff_ms, last_success_ts
"""


async def note_pause(conn: Connection, destination: ServerName, *, retry_at_ts: int) -> DestinationRow:
    """Says that a server wants to be left alone until a time."""
    row = await conn.fetchrow(UPSERT_PAUSE, destination, retry_at_ts)
    assert row is not None
    return DestinationRow(**row)


UPDATE_CONTACTS: Final = """
    UPDATE destinations SET retry_at_ts = 0
    WHERE destination = ANY ($1::text[]) AND failing_since_ts IS NOT NULL AND retry_at_ts > $2
    RETURNING destination
"""


async def make_due(conn: Connection, destinations: Collection[ServerName], *, now_ms: int) -> list[ServerName]:
    """Ends the pauses of servers that fail but have asked something of this one; returns those that had one."""
    rows = await conn.fetch(UPDATE_CONTACTS, list(destinations), now_ms)
    return [ServerName(row["destination"]) for row in rows]


DELETE_DESTINATIONS: Final = """
    DELETE FROM destinations WHERE last_success_ts < $1 AND retry_at_ts < $1 AND coalesce(failing_since_ts, 0) < $1
"""


async def delete_destinations(conn: Connection, *, unused_since_ts: int) -> None:
    """Forgets servers that nobody has called for long."""
    await conn.execute(DELETE_DESTINATIONS, unused_since_ts)


SELECT_FAILING_DESTINATIONS: Final = """
    SELECT destination, failing_since_ts, retry_at_ts, backoff_ms, last_success_ts FROM destinations
    WHERE failing_since_ts IS NOT NULL AND destination > $1
    ORDER BY destination
    LIMIT $2
"""


async def list_failing_destinations(
    conn: Connection, *, after: str, limit: int
) -> list[tuple[ServerName, DestinationRow]]:
    """A page of the servers that do not answer, by name."""
    rows = await conn.fetch(SELECT_FAILING_DESTINATIONS, after, limit)
    return [
        (
            ServerName(row["destination"]),
            DestinationRow(
                failing_since_ts=row["failing_since_ts"],
                retry_at_ts=row["retry_at_ts"],
                backoff_ms=row["backoff_ms"],
                last_success_ts=row["last_success_ts"],
            ),
        )
        for row in rows
    ]
