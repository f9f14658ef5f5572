"""Which worker serves which destinations, and how far each share of them has been told of what passes.

A worker announces itself by a lease of its own, and holds a lease for each share that it serves.
"""

from collections.abc import Collection, Mapping
from typing import Final

from homeserver.core.ids import ServerName
from storage.database import Connection

SELECT_LEASES_NAMED: Final = """
    SELECT count(*) FROM leases WHERE starts_with(name, $1) AND expires_at >= clock_timestamp()
"""


async def count_leases_named(conn: Connection, prefix: str) -> int:
    """How many leases are held now whose names begin so."""
    return int(await conn.fetchval(SELECT_LEASES_NAMED, prefix))


INSERT_EDU_POSITIONS: Final = """
    INSERT INTO edu_positions (share, position) SELECT share, $2 FROM unnest($1::smallint[]) AS share ORDER BY share
    ON CONFLICT (share) DO NOTHING
"""
SELECT_EDU_POSITIONS: Final = "SELECT share, position FROM edu_positions WHERE share = ANY ($1::smallint[])"


async def get_edu_positions(conn: Connection, shares: Collection[int], *, start: int) -> dict[int, int]:
    """Up to where what passes has been told to the servers of some shares; new ones begin at `start`."""
    wanted = list(shares)
    positions = {row["share"]: row["position"] for row in await conn.fetch(SELECT_EDU_POSITIONS, wanted)}
    if len(positions) < len(wanted):
        await conn.execute(INSERT_EDU_POSITIONS, wanted, start)
        positions = {row["share"]: row["position"] for row in await conn.fetch(SELECT_EDU_POSITIONS, wanted)}
    return positions


UPDATE_EDU_POSITIONS: Final = """
    UPDATE edu_positions p SET position = told.position
    FROM unnest($1::smallint[], $2::bigint[]) AS told (share, position)
    WHERE p.share = told.share AND p.position < told.position
"""


async def advance_edu_positions(conn: Connection, positions: Mapping[int, int]) -> None:
    """Saves up to where the servers of some shares have been told; positions only go forwards."""
    await conn.execute(UPDATE_EDU_POSITIONS, list(positions), list(positions.values()))


INSERT_EDU_LAGS: Final = """
    INSERT INTO edu_lags (destination, position)
    SELECT destination, position FROM unnest($1::text[], $2::bigint[]) AS l (destination, position) ORDER BY destination
    ON CONFLICT (destination) DO UPDATE SET position = least(edu_lags.position, excluded.position)
"""


async def note_edu_lags(conn: Connection, lags: Mapping[ServerName, int]) -> None:
    """Says from which position on some servers have not been told of what passes."""
    await conn.execute(INSERT_EDU_LAGS, list(lags), list(lags.values()))


SELECT_EDU_LAGS: Final = "SELECT destination, position FROM edu_lags WHERE destination = ANY ($1::text[])"


async def list_edu_lags(conn: Connection, destinations: Collection[ServerName]) -> dict[ServerName, int]:
    """From which positions on servers have not been told; those that have been told everything are absent."""
    rows = await conn.fetch(SELECT_EDU_LAGS, list(destinations))
    return {ServerName(row["destination"]): row["position"] for row in rows}


SELECT_LAGGING: Final = "SELECT destination FROM edu_lags"


async def list_lagging(conn: Connection) -> set[ServerName]:
    """The servers that have not been told of everything."""
    return {ServerName(row["destination"]) for row in await conn.fetch(SELECT_LAGGING)}


DELETE_EDU_LAGS: Final = "DELETE FROM edu_lags WHERE destination = ANY ($1::text[])"


async def delete_edu_lags(conn: Connection, destinations: Collection[ServerName]) -> None:
    """Says that some servers are told again."""
    await conn.execute(DELETE_EDU_LAGS, list(destinations))
