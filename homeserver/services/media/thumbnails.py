"""Thumbnails: made when they are asked for first, in a process of their own, and kept.

https://spec.matrix.org/v1.19/client-server-api/#thumbnails
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Literal

from homeserver.core.errors import InvalidParam, TooLarge
from homeserver.core.media_types import SNIFFED_BYTES, sniff_picture
from homeserver.services.media.contents import Contents, StoredFile
from homeserver.services.media.downloads import Medium
from homeserver.services.media.picture_processes import MadePicture, NotAPicture, PictureJob, PictureProcesses
from homeserver.services.media.single_flight import SingleFlight
from storage.database import Database
from storage.errors import ConstraintViolation
from storage.media_contents import is_quarantined
from storage.media_thumbnails import KeptThumbnail, ThumbnailKey, find_thumbnail, insert_thumbnail

Method = Literal["scale", "crop"]

EDGES: Final = (32, 96, 320, 640, 800, 1600, 4096)
"""The longer edges of thumbnails that are cut to a shape; a wish is rounded up."""
BOXES: Final = ((32, 32), (96, 96), (320, 240), (640, 480), (800, 600), (1600, 1200), (4096, 4096))
"""The boxes that thumbnails are fitted into; a wish gets the smallest that is as wide and as high."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThumbnailWish:
    """What is asked for; pixels. Nothing smaller is answered unless the picture itself is smaller."""

    width: int
    height: int
    method: Method = "scale"
    animated: bool = False


class Thumbnails:
    """The thumbnails of media that are here."""

    def __init__(self, *, db: Database, contents: Contents, processes: PictureProcesses) -> None:
        self._db = db
        self._contents = contents
        self._processes = processes
        self._flights: SingleFlight[ThumbnailKey] = SingleFlight()

    async def find(self, medium: Medium, wish: ThumbnailWish) -> Medium:
        """A thumbnail, as a medium without a name.

        Raises:
            InvalidParam: the size is none.
            NotAPicture: there are none of this medium.
            TooLarge: it has too many pixels (502 for media of other servers).
        """
        width, height = target_size(wish)
        key = ThumbnailKey(
            source_sha256=medium.sha256, width=width, height=height, method=wish.method, animated=wish.animated
        )
        kept = await self._kept(key)
        if kept is None:
            await self._check_format(medium)
            async with self._flights.turn(key):
                kept = await self._kept(key) or await self._make(medium, key)
        return Medium(
            sha256=kept.sha256,
            size_bytes=kept.size_bytes,
            content_type=kept.content_type,
            file_name=f"thumbnail.{kept.content_type.removeprefix('image/')}",
            is_local=medium.is_local,
        )

    async def _kept(self, key: ThumbnailKey) -> KeptThumbnail | None:
        async with self._db.connection() as conn:
            return await find_thumbnail(conn, key)

    async def _check_format(self, medium: Medium) -> None:
        """Refuses what is no picture by its first bytes; no decoder sees it."""
        head = bytearray()
        opened = await self._contents.open(medium.sha256, length=SNIFFED_BYTES)
        async for data in opened:
            head += data
        if sniff_picture(bytes(head)) is None:
            raise NotAPicture("Cannot generate thumbnails for the requested content")

    async def _make(self, medium: Medium, key: ThumbnailKey) -> KeptThumbnail:
        try:
            async with self._contents.as_file(medium.sha256) as path:
                job = PictureJob(
                    path=path, width=key.width, height=key.height, method=key.method, animated=key.animated
                )
                made = await self._processes.make(job)
        except TooLarge as error:
            raise TooLarge(error.message, status=413 if medium.is_local else 502) from None
        return await self._keep(medium, key, made)

    async def _keep(self, medium: Medium, key: ThumbnailKey, made: MadePicture) -> KeptThumbnail:
        if made.data is None:
            kept = KeptThumbnail(sha256=medium.sha256, size_bytes=medium.size_bytes, content_type=made.content_type)
            await self._insert(key, kept)
            return kept
        kept_or_none: KeptThumbnail | None = None

        async def name(stored: StoredFile) -> None:
            nonlocal kept_or_none
            kept_or_none = KeptThumbnail(
                sha256=stored.sha256, size_bytes=stored.size_bytes, content_type=made.content_type
            )
            await self._insert(key, kept_or_none)

        await self._contents.take_in(_once(made.data), bytes_max=len(made.data), name=name)
        assert kept_or_none is not None, "what was taken in has been named"
        return kept_or_none

    async def _insert(self, key: ThumbnailKey, kept: KeptThumbnail) -> None:
        try:
            async with self._db.connection() as conn:
                if not await is_quarantined(conn, key.source_sha256):
                    await insert_thumbnail(conn, key, kept)
        except ConstraintViolation:
            return  # the medium was removed meanwhile


def target_size(wish: ThumbnailWish) -> tuple[int, int]:
    """The size of the thumbnail that answers a wish: one of few, so that few are made and kept.

    Raises:
        InvalidParam: the wish is not positive.
    """
    if wish.width < 1 or wish.height < 1:
        raise InvalidParam("The width and the height of a thumbnail are at least 1")
    width, height = min(wish.width, EDGES[-1]), min(wish.height, EDGES[-1])
    if wish.method == "scale":
        return next(box for box in BOXES if box[0] >= width and box[1] >= height)
    longer = max(width, height)
    edge = next(edge for edge in EDGES if edge >= longer)
    return max(1, round(width * edge / longer)), max(1, round(height * edge / longer))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
