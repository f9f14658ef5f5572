"""Media of other servers that is kept here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import ServerName
from storage.database import Connection, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteMedia:
    """A medium of another server; times in milliseconds."""

    server_name: ServerName
    media_id: str
    sha256: bytes
    size_bytes: int
    content_type: str
    file_name: str | None
    fetched_ts: int
    last_access_ts: int
    authenticated: bool
    quarantined_by: str | None = None


INSERT_REMOTE_MEDIA: Final = """
    INSERT INTO remote_media (server_name, media_id, sha256, size_bytes, content_type, file_name, fetched_ts,
        last_access_ts, authenticated)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (server_name, media_id) DO NOTHING
"""


async def insert_remote_media(conn: Connection, media: RemoteMedia) -> None:
    """Names a file that was fetched, unless another process has done so."""
    await conn.execute(
        INSERT_REMOTE_MEDIA,
        media.server_name,
        media.media_id,
        media.sha256,
        media.size_bytes,
        media.content_type,
        media.file_name,
        media.fetched_ts,
        media.last_access_ts,
        media.authenticated,
    )


SELECT_REMOTE_MEDIA: Final = """
    SELECT r.*, q.quarantined_by FROM remote_media r LEFT JOIN media_quarantine q USING (sha256)
    WHERE r.server_name = $1 AND r.media_id = $2
"""


async def find_remote_media(conn: Connection, server_name: ServerName, media_id: str) -> RemoteMedia | None:
    """A medium by its name, if it is kept here."""
    row = await conn.fetchrow(SELECT_REMOTE_MEDIA, server_name, media_id)
    return None if row is None else _media(row)


TOUCH_REMOTE_MEDIA: Final = """
    UPDATE remote_media SET last_access_ts = $3 WHERE server_name = $1 AND media_id = $2 AND last_access_ts < $3
"""


async def note_remote_access(conn: Connection, server_name: ServerName, media_id: str, *, now_ms: int) -> None:
    """Notes that somebody has asked for a medium."""
    await conn.execute(TOUCH_REMOTE_MEDIA, server_name, media_id, now_ms)


SELECT_REMOTE_MEDIA_PAGE: Final = """
    SELECT r.*, q.quarantined_by FROM remote_media r LEFT JOIN media_quarantine q USING (sha256)
    WHERE (r.server_name, r.media_id) > ($1, $2) ORDER BY r.server_name, r.media_id LIMIT $3
"""


async def list_remote_media(conn: Connection, *, after: tuple[str, str], limit: int) -> Sequence[RemoteMedia]:
    """What is kept, a page at a time in the order of servers and names."""
    return [_media(row) for row in await conn.fetch(SELECT_REMOTE_MEDIA_PAGE, *after, limit)]


DELETE_REMOTE_MEDIA: Final = "DELETE FROM remote_media WHERE server_name = $1 AND media_id = $2 RETURNING true"


async def delete_remote_media(conn: Connection, server_name: ServerName, media_id: str) -> bool:
    """Forgets a medium; False if it was not kept. Its file is swept when nothing else names it."""
    return await conn.fetchval(DELETE_REMOTE_MEDIA, server_name, media_id) is not None


DELETE_UNUSED_REMOTE_MEDIA: Final = """
    DELETE FROM remote_media WHERE (server_name, media_id) IN (
        SELECT r.server_name, r.media_id FROM remote_media r WHERE r.last_access_ts < $1
        ORDER BY r.last_access_ts LIMIT $2
    )
"""


async def delete_unused_remote_media(conn: Connection, *, before_ts: int, limit: int) -> int:
    """Forgets media that nobody has asked for since a time; returns how many."""
    return _count(await conn.execute(DELETE_UNUSED_REMOTE_MEDIA, before_ts, limit))


DELETE_OLD_REMOTE_MEDIA: Final = """
    DELETE FROM remote_media WHERE (server_name, media_id) IN (
        SELECT r.server_name, r.media_id FROM remote_media r WHERE r.fetched_ts < $1 LIMIT $2
    )
"""


async def delete_old_remote_media(conn: Connection, *, fetched_before_ts: int, limit: int) -> int:
    """Forgets media that were fetched before a time; returns how many."""
    return _count(await conn.execute(DELETE_OLD_REMOTE_MEDIA, fetched_before_ts, limit))


SELECT_REMOTE_BYTES: Final = "SELECT coalesce(sum(size_bytes), 0)::bigint FROM remote_media"


async def remote_bytes(conn: Connection) -> int:
    """The bytes of all media of other servers that are kept, each name counted."""
    total: int = await conn.fetchval(SELECT_REMOTE_BYTES)
    return total


DELETE_LEAST_USED_REMOTE_MEDIA: Final = """
    WITH candidates AS (
        SELECT server_name, media_id,
            sum(size_bytes) OVER (ORDER BY last_access_ts, server_name, media_id) - size_bytes AS freed_before
        FROM (SELECT server_name, media_id, size_bytes, last_access_ts FROM remote_media
            ORDER BY last_access_ts, server_name, media_id LIMIT $2) AS oldest
    )
    DELETE FROM remote_media WHERE (server_name, media_id) IN
        (SELECT server_name, media_id FROM candidates WHERE freed_before < $1)
"""


async def delete_least_used_remote_media(conn: Connection, *, excess_bytes: int, limit: int) -> int:
    """Forgets those media that nobody has asked for longest, until so many bytes are free; returns how many."""
    return _count(await conn.execute(DELETE_LEAST_USED_REMOTE_MEDIA, excess_bytes, limit))


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])


def _media(row: Row) -> RemoteMedia:
    return RemoteMedia(
        server_name=ServerName(row["server_name"]),
        media_id=row["media_id"],
        sha256=row["sha256"],
        size_bytes=row["size_bytes"],
        content_type=row["content_type"],
        file_name=row["file_name"],
        fetched_ts=row["fetched_ts"],
        last_access_ts=row["last_access_ts"],
        authenticated=row["authenticated"],
        quarantined_by=row["quarantined_by"],
    )
