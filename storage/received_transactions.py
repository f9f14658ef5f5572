"""Transactions of other servers and what was answered, so that one that is sent again gets the same answer."""

from typing import Final

from homeserver.core.ids import ServerName
from storage.database import Connection

SELECT_RESPONSE: Final = "SELECT response FROM received_transactions WHERE origin = $1 AND transaction_id = $2"


async def find_response(conn: Connection, origin: ServerName, transaction_id: str) -> str | None:
    """What was answered to a transaction, as JSON; None if it has not been taken."""
    response: str | None = await conn.fetchval(SELECT_RESPONSE, origin, transaction_id)
    return response


INSERT_RESPONSE: Final = """
    INSERT INTO received_transactions (origin, transaction_id, response) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
"""


async def insert_response(conn: Connection, origin: ServerName, transaction_id: str, response: str) -> None:
    """Notes what is answered to a transaction."""
    await conn.execute(INSERT_RESPONSE, origin, transaction_id, response)


DELETE_OLD_TRANSACTIONS: Final = """
    WITH old AS (
        SELECT origin, transaction_id FROM received_transactions
        WHERE received_at < now() - interval '1 day' ORDER BY received_at LIMIT $1
    ), deleted AS (
        DELETE FROM received_transactions t USING old
        WHERE t.origin = old.origin AND t.transaction_id = old.transaction_id
    )
    SELECT count(*) FROM old
"""


async def delete_old_transactions(conn: Connection, *, limit: int) -> int:
    """Forgets some transactions of more than a day ago; returns how many."""
    return int(await conn.fetchval(DELETE_OLD_TRANSACTIONS, limit))
