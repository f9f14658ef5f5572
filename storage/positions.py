"""Positions, the one order of all streams: how far a reader may read now.

A reader takes `since <= position < upto` with `upto` from `stream_bound`, in a later statement than that, and
continues from `upto`. How it works and why nothing is lost is told in `migrations/0001_streams.up.sql`.
"""

from typing import Final

from storage.database import Connection

SELECT_STREAM_BOUND: Final = "SELECT stream_bound()"


async def stream_bound(conn: Connection) -> int:
    """The bound below which no row can appear any more, for rows read by later statements."""
    return int(await conn.fetchval(SELECT_STREAM_BOUND))


SELECT_STREAM_POSITION: Final = "SELECT stream_position()"


async def stream_position(conn: Connection) -> int:
    """The position of the rows that this transaction writes."""
    return int(await conn.fetchval(SELECT_STREAM_POSITION))
