"""Leases: rows that say which process does now what only one may do. Time is the database's clock, the same for all.

A holder renews before the expiry; one that cannot must stop before it, by its own measure of time. What is written
under a lease is guarded besides (`storage.followers`), for a holder may be late to notice.
"""

import secrets
from collections.abc import Collection, Sequence
from typing import Final

from storage.database import Connection

LEASE_MS: Final = 8_000
"""How long a lease is held without a renewal: within so many seconds others do what a machine did that has gone."""
RENEWAL_SECONDS: Final = 2.5
"""How often leases are renewed."""
RENEWAL_SECONDS_MAX: Final = 5.5
"""Without a renewal for so long the holder stops: well before the others may take over."""
STANDBY_SECONDS: Final = 2.0
"""How often others look whether a lease has become free."""

PROCESS: Final = secrets.token_urlsafe(9)
"""How this process calls itself, whatever it holds and on whatever machine it runs."""


def new_holder() -> str:
    """A name that nobody else holds leases under; it tells which process it is of."""
    return f"{PROCESS}:{secrets.token_urlsafe(9)}"


ACQUIRE_LEASES: Final = """
    INSERT INTO leases (name, holder, expires_at)
    SELECT name, $2, clock_timestamp() + $3 * interval '1 millisecond' FROM unnest($1::text[]) AS wanted (name)
    -- Locking rows that others hold, only to find that out, would write each time.
    WHERE NOT EXISTS (
        SELECT FROM leases held
        WHERE held.name = wanted.name AND held.holder <> $2 AND held.expires_at >= clock_timestamp()
    )
    ORDER BY name
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
        WHERE leases.holder = excluded.holder OR leases.expires_at < clock_timestamp()
    RETURNING name
"""


async def acquire_leases(conn: Connection, names: Collection[str], *, holder: str, duration_ms: int) -> frozenset[str]:
    """Takes those leases that are free, expired, or the holder's own (which renews them); returns their names."""
    rows = await conn.fetch(ACQUIRE_LEASES, sorted(names), holder, duration_ms)
    return frozenset(row["name"] for row in rows)


RENEW_LEASES: Final = """
    UPDATE leases SET expires_at = clock_timestamp() + $3 * interval '1 millisecond'
    WHERE name = ANY ($1::text[]) AND holder = $2
    RETURNING name
"""


async def renew_leases(conn: Connection, names: Collection[str], *, holder: str, duration_ms: int) -> frozenset[str]:
    """Moves the expiry of those leases that are still the holder's; returns their names. The others are lost."""
    rows = await conn.fetch(RENEW_LEASES, list(names), holder, duration_ms)
    return frozenset(row["name"] for row in rows)


DELETE_LEASES: Final = "DELETE FROM leases WHERE name = ANY ($1::text[]) AND holder = $2"


async def delete_leases(conn: Connection, names: Collection[str], *, holder: str) -> None:
    """Gives leases back, so that others need not wait for the expiry."""
    await conn.execute(DELETE_LEASES, list(names), holder)


DELETE_LEASES_OF_PROCESS: Final = "DELETE FROM leases WHERE starts_with(holder, $1 || ':')"


async def delete_leases_of_process(conn: Connection, process: str) -> int:
    """Gives all leases back that a process held, which has died (its `PROCESS`); how many these were."""
    status: str = await conn.execute(DELETE_LEASES_OF_PROCESS, process)
    return int(status.rpartition(" ")[2])


SELECT_LEASES_OF_PROCESS: Final = """
    SELECT count(*) FROM leases WHERE starts_with(holder, $1 || ':') AND expires_at >= clock_timestamp()
"""


async def count_leases_of_process(conn: Connection, process: str) -> int:
    """How many leases a process holds now."""
    return int(await conn.fetchval(SELECT_LEASES_OF_PROCESS, process))


SELECT_LEASES: Final = """
    SELECT name, holder FROM leases WHERE name = ANY ($1::text[]) AND expires_at >= clock_timestamp() ORDER BY name
"""


async def list_leases(conn: Connection, names: Sequence[str]) -> dict[str, str]:
    """The holders of those leases that are held now, by name."""
    return {row["name"]: row["holder"] for row in await conn.fetch(SELECT_LEASES, list(names))}


SELECT_ANY_LEASE: Final = """
    SELECT EXISTS (SELECT FROM leases WHERE starts_with(name, $1) AND expires_at >= clock_timestamp())
"""


async def is_any_held(conn: Connection, *, prefix: str) -> bool:
    """Whether any lease is held now whose name begins so."""
    held: bool = await conn.fetchval(SELECT_ANY_LEASE, prefix)
    return held


DELETE_EXPIRED_LEASES: Final = """
    DELETE FROM leases WHERE name IN (
        SELECT name FROM leases WHERE expires_at < clock_timestamp() - interval '1 hour' LIMIT $1 FOR UPDATE SKIP LOCKED
    )
"""


async def delete_expired_leases(conn: Connection, *, limit: int) -> int:
    """Removes leases that nobody has wanted since they expired an hour ago, for example of killed workers; how many."""
    status: str = await conn.execute(DELETE_EXPIRED_LEASES, limit)
    return int(status.rpartition(" ")[2])
