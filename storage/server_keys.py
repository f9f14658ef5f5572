"""The signing keys of other servers, and the answers in which they were published."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.ids import ServerName
from storage.database import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKeyRow:
    """A key; all times in milliseconds.

    Attributes:
        key: in unpadded base64.
        expired_ts: when the server stopped using it; None for one in use.
        promised_until_ts: until when the answer that named it is good.
    """

    server_name: ServerName
    key_id: str
    key: str
    expired_ts: int | None
    promised_until_ts: int


SELECT_SERVER_KEYS: Final = """
    SELECT server_name, key_id, key, expired_ts, promised_until_ts FROM server_keys
    WHERE server_name = ANY ($1::text[])
"""


async def list_server_keys(conn: Connection, server_names: Collection[ServerName]) -> list[ServerKeyRow]:
    """All known keys of some servers."""
    return [
        ServerKeyRow(
            server_name=ServerName(row["server_name"]),
            key_id=row["key_id"],
            key=row["key"],
            expired_ts=row["expired_ts"],
            promised_until_ts=row["promised_until_ts"],
        )
        for row in await conn.fetch(SELECT_SERVER_KEYS, list(server_names))
    ]


UPSERT_SERVER_KEYS: Final = """
    INSERT INTO server_keys (server_name, key_id, key, expired_ts, promised_until_ts, fetched_ts, answer)
    SELECT given.server_name, given.key_id, given.key, given.expired_ts, given.promised_until_ts, $6, given.answer
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $7::text[])
        AS given (server_name, key_id, key, expired_ts, promised_until_ts, answer)
    ORDER BY given.server_name, given.key_id
    ON CONFLICT (server_name, key_id) DO UPDATE SET
        key = excluded.key, expired_ts = excluded.expired_ts, promised_until_ts = excluded.promised_until_ts,
        fetched_ts = excluded.fetched_ts, answer = excluded.answer
        WHERE excluded.promised_until_ts >= server_keys.promised_until_ts
"""


async def upsert_server_keys(
    conn: Connection, rows: Sequence[ServerKeyRow], *, answers: Sequence[str], fetched_ts: int
) -> None:
    """Keeps keys, unless newer answers have told something else of them.

    Args:
        conn: a connection.
        rows: no key twice.
        answers: for each row the answer that names it, as JSON.
        fetched_ts: the time.
    """
    await conn.execute(
        UPSERT_SERVER_KEYS,
        [row.server_name for row in rows],
        [row.key_id for row in rows],
        [row.key for row in rows],
        [row.expired_ts for row in rows],
        [row.promised_until_ts for row in rows],
        fetched_ts,
        list(answers),
    )


@dataclass(frozen=True, slots=True)
class KeyAnswerRow:
    """An answer that is needed to show some of a server's keys; `json` is its text."""

    promised_until_ts: int
    fetched_ts: int
    json: str = field(repr=False)


SELECT_KEY_ANSWERS: Final = """
    SELECT promised_until_ts, max(fetched_ts) AS fetched_ts, answer FROM server_keys
    WHERE server_name = $1 AND (cardinality($3::text[]) = 0 OR key_id = ANY ($3))
    GROUP BY promised_until_ts, answer
    ORDER BY promised_until_ts DESC, fetched_ts DESC
    LIMIT $2
"""


async def list_key_answers(
    conn: Connection, server_name: ServerName, *, key_ids: Collection[str], limit: int
) -> list[KeyAnswerRow]:
    """The answers that between them name some known keys of a server, without `key_ids` all, the newest first."""
    rows = await conn.fetch(SELECT_KEY_ANSWERS, server_name, limit, list(key_ids))
    return [KeyAnswerRow(row["promised_until_ts"], row["fetched_ts"], row["answer"]) for row in rows]
