"""Media of this server: what its users have uploaded, or have been given a name for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from homeserver.core.ids import UserId
from storage.database import Connection, Row

Order = Literal["media_id", "created_ts", "last_access_ts", "size_bytes"]
"""What a list of media may be sorted by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalMedia:
    """A medium; `sha256` is None until it is uploaded, which it can be until `expires_ts`. Times in milliseconds."""

    media_id: str
    user_id: UserId
    sha256: bytes | None
    size_bytes: int
    content_type: str
    file_name: str | None
    created_ts: int
    expires_ts: int | None
    last_access_ts: int
    authenticated: bool
    protected: bool
    quarantined_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMedia:
    """A medium that is to be named; its file has its place already."""

    media_id: str
    user_id: UserId
    sha256: bytes
    size_bytes: int
    content_type: str
    file_name: str | None
    authenticated: bool
    is_preview: bool = False


INSERT_LOCAL_MEDIA: Final = """
    INSERT INTO local_media (media_id, user_id, sha256, size_bytes, content_type, file_name, authenticated, is_preview,
        created_ts, last_access_ts)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
"""


async def insert_local_media(conn: Connection, media: NewMedia, *, now_ms: int) -> None:
    """Names an upload."""
    await conn.execute(
        INSERT_LOCAL_MEDIA,
        media.media_id,
        media.user_id,
        media.sha256,
        media.size_bytes,
        media.content_type,
        media.file_name,
        media.authenticated,
        media.is_preview,
        now_ms,
    )


INSERT_PENDING_MEDIA: Final = """
    INSERT INTO local_media (media_id, user_id, created_ts, expires_ts, last_access_ts, authenticated)
    SELECT $1, $2, $3, $4, $3, $5
    WHERE (SELECT count(*) FROM local_media WHERE user_id = $2 AND sha256 IS NULL AND expires_ts > $3) < $6
    RETURNING true
"""


async def insert_pending_media(
    conn: Connection,
    media_id: str,
    *,
    user_id: UserId,
    expires_ts: int,
    authenticated: bool,
    pending_max: int,
    now_ms: int,
) -> bool:
    """Gives out a name for an upload to come; False if the user has too many of them."""
    made = await conn.fetchval(INSERT_PENDING_MEDIA, media_id, user_id, now_ms, expires_ts, authenticated, pending_max)
    return made is not None


COMPLETE_PENDING_MEDIA: Final = """
    UPDATE local_media SET sha256 = $2, size_bytes = $3, content_type = $4, file_name = $5, expires_ts = NULL,
        created_ts = $6, last_access_ts = $6
    WHERE media_id = $1 AND sha256 IS NULL
    RETURNING true
"""


async def complete_pending_media(conn: Connection, media: NewMedia, *, now_ms: int) -> bool:
    """Gives a name its upload; False if it has one, or is gone."""
    done = await conn.fetchval(
        COMPLETE_PENDING_MEDIA,
        media.media_id,
        media.sha256,
        media.size_bytes,
        media.content_type,
        media.file_name,
        now_ms,
    )
    return done is not None


SELECT_LOCAL_MEDIA: Final = """
    SELECT l.*, q.quarantined_by FROM local_media l LEFT JOIN media_quarantine q USING (sha256) WHERE l.media_id = $1
"""


async def find_local_media(conn: Connection, media_id: str) -> LocalMedia | None:
    """A medium by its name."""
    row = await conn.fetchrow(SELECT_LOCAL_MEDIA, media_id)
    return None if row is None else _media(row)


SELECT_USAGE: Final = """
    SELECT count(*) AS files, coalesce(sum(size_bytes), 0)::bigint AS size_bytes FROM local_media
    WHERE user_id = $1 AND NOT is_preview
"""


async def usage_of_user(conn: Connection, user_id: UserId) -> tuple[int, int]:
    """How many media a user has, and their bytes."""
    row = await conn.fetchrow(SELECT_USAGE, user_id)
    assert row is not None
    return row["files"], row["size_bytes"]


TOUCH_LOCAL_MEDIA: Final = "UPDATE local_media SET last_access_ts = $2 WHERE media_id = $1 AND last_access_ts < $2"


async def note_local_access(conn: Connection, media_id: str, *, now_ms: int) -> None:
    """Notes that somebody has asked for a medium."""
    await conn.execute(TOUCH_LOCAL_MEDIA, media_id, now_ms)


SELECT_MEDIA_OF_USER: Final = """
    SELECT l.*, q.quarantined_by FROM local_media l LEFT JOIN media_quarantine q USING (sha256)
    WHERE l.user_id = $1 AND NOT l.is_preview
    ORDER BY
        CASE WHEN NOT $3 THEN CASE $2::text WHEN 'created_ts' THEN created_ts WHEN 'last_access_ts' THEN last_access_ts
            WHEN 'size_bytes' THEN size_bytes END END,
        CASE WHEN $3 THEN CASE $2::text WHEN 'created_ts' THEN created_ts WHEN 'last_access_ts' THEN last_access_ts
            WHEN 'size_bytes' THEN size_bytes END END DESC,
        CASE WHEN NOT $3 THEN media_id END, media_id DESC
    OFFSET $4 LIMIT $5
"""


async def list_media_of_user(
    conn: Connection, user_id: UserId, *, order: Order, descending: bool, offset: int, limit: int
) -> Sequence[LocalMedia]:
    """A page of a user's media."""
    rows = await conn.fetch(SELECT_MEDIA_OF_USER, user_id, order, descending, offset, limit)
    return [_media(row) for row in rows]


SELECT_LOCAL_MEDIA_PAGE: Final = """
    SELECT l.*, q.quarantined_by FROM local_media l LEFT JOIN media_quarantine q USING (sha256)
    WHERE l.media_id > $1 AND ($2::text IS NULL OR l.user_id = $2) ORDER BY l.media_id LIMIT $3
"""


async def list_local_media(conn: Connection, *, after: str, user_id: UserId | None, limit: int) -> Sequence[LocalMedia]:
    """All media, or those of a user, a page at a time in the order of their names."""
    rows = await conn.fetch(SELECT_LOCAL_MEDIA_PAGE, after, user_id, limit)
    return [_media(row) for row in rows]


PROTECT_LOCAL_MEDIA: Final = "UPDATE local_media SET protected = $2 WHERE media_id = $1 RETURNING true"


async def protect_local_media(conn: Connection, media_id: str, *, protected: bool) -> bool:
    """Says whether a medium is spared when those of its user are quarantined; False if there is none."""
    return await conn.fetchval(PROTECT_LOCAL_MEDIA, media_id, protected) is not None


DELETE_LOCAL_MEDIA: Final = "DELETE FROM local_media WHERE media_id = ANY ($1::text[]) RETURNING media_id"


async def delete_local_media(conn: Connection, media_ids: Sequence[str]) -> Sequence[str]:
    """Forgets media; returns those that there were. Their files are swept when nothing else names them."""
    return [row["media_id"] for row in await conn.fetch(DELETE_LOCAL_MEDIA, list(media_ids))]


DELETE_UNUSED_LOCAL_MEDIA: Final = """
    DELETE FROM local_media WHERE media_id IN (
        SELECT l.media_id FROM local_media l
        WHERE l.sha256 IS NOT NULL AND l.last_access_ts < $1 AND l.size_bytes > $2 AND NOT l.protected
            AND NOT EXISTS (SELECT FROM media_quarantine q WHERE q.sha256 = l.sha256)
            AND NOT ($3 AND EXISTS (SELECT FROM profile_fields p
                WHERE p.name = 'avatar_url' AND p.value = to_json('mxc://' || $4 || '/' || l.media_id)::text))
        ORDER BY l.last_access_ts LIMIT $5
    )
    RETURNING media_id
"""


async def delete_unused_local_media(
    conn: Connection, *, before_ts: int, larger_than_bytes: int, keep_profiles: bool, server_name: str, limit: int
) -> Sequence[str]:
    """Forgets media that nobody has asked for since a time, unless protected or quarantined; returns their names."""
    rows = await conn.fetch(DELETE_UNUSED_LOCAL_MEDIA, before_ts, larger_than_bytes, keep_profiles, server_name, limit)
    return [row["media_id"] for row in rows]


DELETE_OLD_LOCAL_MEDIA: Final = """
    DELETE FROM local_media WHERE media_id IN (
        SELECT l.media_id FROM local_media l
        WHERE l.created_ts < $1 AND l.sha256 IS NOT NULL AND NOT l.protected
        ORDER BY l.created_ts LIMIT $2
    )
"""


async def delete_old_local_media(conn: Connection, *, created_before_ts: int, limit: int) -> int:
    """Forgets media that were uploaded before a time, unless protected; returns how many."""
    return _count(await conn.execute(DELETE_OLD_LOCAL_MEDIA, created_before_ts, limit))


DELETE_OLD_PREVIEW_MEDIA: Final = """
    DELETE FROM local_media WHERE media_id IN (
        SELECT l.media_id FROM local_media l WHERE l.is_preview AND l.created_ts < $1 LIMIT $2
    )
"""


async def delete_old_preview_media(conn: Connection, *, created_before_ts: int, limit: int) -> int:
    """Forgets pictures of previews; returns how many."""
    return _count(await conn.execute(DELETE_OLD_PREVIEW_MEDIA, created_before_ts, limit))


DELETE_EXPIRED_MEDIA: Final = """
    DELETE FROM local_media WHERE media_id IN (
        SELECT l.media_id FROM local_media l WHERE l.sha256 IS NULL AND l.expires_ts < $1 LIMIT $2
    )
"""


async def delete_expired_media(conn: Connection, *, expired_before_ts: int, limit: int) -> int:
    """Forgets names for which no upload came; returns how many."""
    return _count(await conn.execute(DELETE_EXPIRED_MEDIA, expired_before_ts, limit))


SELECT_LOCAL_BYTES: Final = "SELECT coalesce(sum(size_bytes), 0)::bigint FROM local_media"


async def local_bytes(conn: Connection) -> int:
    """The bytes of all media of this server, each name counted."""
    total: int = await conn.fetchval(SELECT_LOCAL_BYTES)
    return total


DELETE_LEAST_USED_LOCAL_MEDIA: Final = """
    WITH candidates AS (
        SELECT media_id, sum(size_bytes) OVER (ORDER BY last_access_ts, media_id) - size_bytes AS freed_before
        FROM (SELECT media_id, size_bytes, last_access_ts FROM local_media
            WHERE sha256 IS NOT NULL AND NOT protected ORDER BY last_access_ts, media_id LIMIT $2) AS oldest
    )
    DELETE FROM local_media WHERE media_id IN (SELECT media_id FROM candidates WHERE freed_before < $1)
"""


async def delete_least_used_local_media(conn: Connection, *, excess_bytes: int, limit: int) -> int:
    """Forgets those media that nobody has asked for longest, until so many bytes are free; returns how many."""
    return _count(await conn.execute(DELETE_LEAST_USED_LOCAL_MEDIA, excess_bytes, limit))


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])


def _media(row: Row) -> LocalMedia:
    return LocalMedia(
        media_id=row["media_id"],
        user_id=UserId(row["user_id"]),
        sha256=row["sha256"],
        size_bytes=row["size_bytes"],
        content_type=row["content_type"],
        file_name=row["file_name"],
        created_ts=row["created_ts"],
        expires_ts=row["expires_ts"],
        last_access_ts=row["last_access_ts"],
        authenticated=row["authenticated"],
        protected=row["protected"],
        quarantined_by=row["quarantined_by"],
    )
