"""Previews of pages that are kept, by URL and language."""

from typing import Final

from storage.database import Connection

SELECT_PREVIEW: Final = """
    SELECT preview FROM url_previews WHERE url_sha256 = $1 AND language = $2 AND fetched_ts > $3
"""


async def find_preview(conn: Connection, url_sha256: bytes, language: str, *, fetched_after_ts: int) -> str | None:
    """The JSON of a preview that is young enough."""
    preview: str | None = await conn.fetchval(SELECT_PREVIEW, url_sha256, language, fetched_after_ts)
    return preview


UPSERT_PREVIEW: Final = """
    INSERT INTO url_previews (url_sha256, language, preview, fetched_ts) VALUES ($1, $2, $3, $4)
    ON CONFLICT (url_sha256, language) DO UPDATE SET preview = excluded.preview, fetched_ts = excluded.fetched_ts
"""


async def keep_preview(conn: Connection, url_sha256: bytes, language: str, *, preview: str, now_ms: int) -> None:
    """Keeps a preview."""
    await conn.execute(UPSERT_PREVIEW, url_sha256, language, preview, now_ms)


DELETE_OLD_PREVIEWS: Final = """
    DELETE FROM url_previews WHERE (url_sha256, language) IN (
        SELECT p.url_sha256, p.language FROM url_previews p WHERE p.fetched_ts < $1 LIMIT $2
    )
"""


async def delete_old_previews(conn: Connection, *, fetched_before_ts: int, limit: int) -> int:
    """Forgets previews; returns how many."""
    status = await conn.execute(DELETE_OLD_PREVIEWS, fetched_before_ts, limit)
    return int(status.rpartition(" ")[2])
