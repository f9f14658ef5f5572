"""Thumbnails that are kept, by the file that they are of and what was asked for."""

from dataclasses import dataclass
from typing import Final

from storage.database import Connection

THUMBNAILS_PER_FILE_MAX: Final = 64
"""Thumbnails in further sizes are made for those who ask, but not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThumbnailKey:
    """Which thumbnail; width and height in pixels, `method` is `scale` or `crop`."""

    source_sha256: bytes
    width: int
    height: int
    method: str
    animated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptThumbnail:
    """The file of a thumbnail."""

    sha256: bytes
    size_bytes: int
    content_type: str


SELECT_THUMBNAIL: Final = """
    SELECT sha256, size_bytes, content_type FROM media_thumbnails
    WHERE source_sha256 = $1 AND width = $2 AND height = $3 AND method = $4 AND animated = $5
"""


async def find_thumbnail(conn: Connection, key: ThumbnailKey) -> KeptThumbnail | None:
    """A thumbnail, if it is kept."""
    row = await conn.fetchrow(SELECT_THUMBNAIL, key.source_sha256, key.width, key.height, key.method, key.animated)
    if row is None:
        return None
    return KeptThumbnail(sha256=row["sha256"], size_bytes=row["size_bytes"], content_type=row["content_type"])


INSERT_THUMBNAIL: Final = """
    INSERT INTO media_thumbnails (source_sha256, width, height, method, animated, sha256, size_bytes, content_type)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8
    WHERE (SELECT count(*) FROM media_thumbnails WHERE source_sha256 = $1) < $9
        AND EXISTS (SELECT FROM media_contents WHERE sha256 = $1 AND NOT removing)
    ON CONFLICT DO NOTHING
"""


async def insert_thumbnail(conn: Connection, key: ThumbnailKey, kept: KeptThumbnail) -> None:
    """Keeps a thumbnail, unless its file has too many of them."""
    await conn.execute(
        INSERT_THUMBNAIL,
        key.source_sha256,
        key.width,
        key.height,
        key.method,
        key.animated,
        kept.sha256,
        kept.size_bytes,
        kept.content_type,
        THUMBNAILS_PER_FILE_MAX,
    )
