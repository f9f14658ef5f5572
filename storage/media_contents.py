"""The files of the content repository: which are stored, which are still needed, and which nobody is given.

Whoever brings bytes notes them first (`touch_content`), then puts the file in its place, then names it. Whoever removes
a file marks it first, so that nobody names it meanwhile.
"""

from collections.abc import Sequence
from typing import Final

from homeserver.core.ids import UserId
from storage.database import Connection

TOUCH_CONTENT: Final = """
    INSERT INTO media_contents AS c (sha256, size_bytes, touched_ts) VALUES ($1, $2, $3)
    ON CONFLICT (sha256) DO UPDATE SET touched_ts = excluded.touched_ts WHERE NOT c.removing
    RETURNING true
"""


async def touch_content(conn: Connection, sha256: bytes, *, size_bytes: int, now_ms: int) -> bool:
    """Notes that a file is being brought; False if it is being removed right now: try again in a moment."""
    return await conn.fetchval(TOUCH_CONTENT, sha256, size_bytes, now_ms) is not None


MARK_UNUSED_CONTENTS: Final = """
    UPDATE media_contents SET removing = true WHERE sha256 IN (
        SELECT c.sha256 FROM media_contents c
        WHERE c.touched_ts < $1
            AND NOT EXISTS (SELECT FROM local_media l WHERE l.sha256 = c.sha256)
            AND NOT EXISTS (SELECT FROM remote_media r WHERE r.sha256 = c.sha256)
            AND NOT EXISTS (
                SELECT FROM media_thumbnails t WHERE t.sha256 = c.sha256 AND t.source_sha256 <> c.sha256
            )
        LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    RETURNING sha256
"""


async def mark_unused_contents(conn: Connection, *, touched_before_ts: int, limit: int) -> Sequence[bytes]:
    """Marks files that have no name any more as being removed; returns them, also those that were marked before."""
    return [row["sha256"] for row in await conn.fetch(MARK_UNUSED_CONTENTS, touched_before_ts, limit)]


DELETE_MARKED_CONTENTS: Final = "DELETE FROM media_contents WHERE sha256 = ANY ($1::bytea[]) AND removing"


async def delete_marked_contents(conn: Connection, sha256s: Sequence[bytes]) -> None:
    """Forgets files that have been removed."""
    await conn.execute(DELETE_MARKED_CONTENTS, list(sha256s))


SELECT_CONTENTS: Final = "SELECT sha256 FROM media_contents WHERE sha256 > $1 AND NOT removing ORDER BY sha256 LIMIT $2"


async def list_contents(conn: Connection, *, after: bytes, limit: int) -> Sequence[bytes]:
    """The files that are stored, a page at a time in the order of their hashes."""
    return [row["sha256"] for row in await conn.fetch(SELECT_CONTENTS, after, limit)]


INSERT_QUARANTINE: Final = """
    INSERT INTO media_quarantine (sha256, quarantined_by, quarantined_ts)
    SELECT sha256, $2, $3 FROM unnest($1::bytea[]) AS sha256 ON CONFLICT DO NOTHING
"""


async def quarantine_contents(conn: Connection, sha256s: Sequence[bytes], *, by: str, now_ms: int) -> None:
    """Has nobody given these files any more."""
    await conn.execute(INSERT_QUARANTINE, list(sha256s), by, now_ms)


DELETE_QUARANTINE: Final = "DELETE FROM media_quarantine WHERE sha256 = ANY ($1::bytea[])"


async def release_contents(conn: Connection, sha256s: Sequence[bytes]) -> None:
    """Takes files out of quarantine."""
    await conn.execute(DELETE_QUARANTINE, list(sha256s))


SELECT_IS_QUARANTINED: Final = "SELECT EXISTS (SELECT FROM media_quarantine WHERE sha256 = $1)"


async def is_quarantined(conn: Connection, sha256: bytes) -> bool:
    """Whether nobody is given a file."""
    return bool(await conn.fetchval(SELECT_IS_QUARANTINED, sha256))


SELECT_CONTENTS_TO_QUARANTINE: Final = """
    SELECT DISTINCT sha256 FROM local_media WHERE user_id = $1 AND sha256 IS NOT NULL AND NOT protected
"""


async def list_contents_of_user(conn: Connection, user_id: UserId) -> Sequence[bytes]:
    """The files that a user has uploaded, without those that are protected."""
    return [row["sha256"] for row in await conn.fetch(SELECT_CONTENTS_TO_QUARANTINE, user_id)]
