"""Takes files in and hands them out: one place for bytes, whoever brought them and whatever they are called.

A file is written aside and synced; then it is noted, gets its place, and is named (`storage.media_contents`). Wherever
that is interrupted, nothing is left but what the sweep removes.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.errors import NotFound, TooLarge, UnavailableForNow
from storage.database import Database
from storage.media.base import IncomingFile, MediaBytes, NoSuchBytes, OpenBytes, StoreUnavailable
from storage.media_contents import delete_marked_contents, is_quarantined, mark_unused_contents, touch_content

logger = logging.getLogger(__name__)

UNUSED_KEPT_MS: Final = 600_000
"""For how long a file without a name is kept, for somebody may be about to name it."""
INCOMING_KEPT_SECONDS: Final = 3600.0
"""For how long a file aside that nobody writes to is kept."""

_REMOVAL_TRIES: Final = 50
_REMOVAL_PAUSE_SECONDS: Final = 0.2
_SWEPT_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that has its place."""

    sha256: bytes
    size_bytes: int


class Contents:
    """The files of this server."""

    def __init__(self, *, db: Database, store: MediaBytes, clock: Clock) -> None:
        self._db = db
        self._store = store
        self._clock = clock

    async def take_in(
        self,
        chunks: AsyncIterator[bytes],
        *,
        bytes_max: int,
        name: Callable[[StoredFile], Awaitable[None]],
        count: Callable[[int], Awaitable[None]] | None = None,
    ) -> StoredFile:
        """Stores a file as it comes, and has it named.

        Args:
            chunks: its bytes; what they raise ends it, and nothing is left.
            bytes_max: how large it may be.
            name: writes the row that names it, once it has its place.
            count: told of every piece's size.

        Raises:
            TooLarge: it is larger.
            NotFound: these bytes are quarantined.
            UnavailableForNow: the same bytes are being removed, or the store does not take them.
        """
        async with self._store.incoming() as incoming:
            size_bytes = 0
            async for chunk in chunks:
                size_bytes += len(chunk)
                if size_bytes > bytes_max:
                    raise TooLarge(f"The file is larger than {bytes_max} bytes")
                if count is not None:
                    await count(len(chunk))
                await incoming.write(chunk)
            stored = StoredFile(*await incoming.finish())
            await self._keep(incoming, stored)
        await name(stored)
        return stored

    async def open(self, sha256: bytes, *, start: int = 0, length: int | None = None) -> OpenBytes:
        """Opens a file, or a part of it.

        Raises:
            NotFound: it is not there any more.
            UnavailableForNow: the store does not give it.
        """
        with _told(sha256):
            return await self._store.open(sha256, start=start, length=length)

    @asynccontextmanager
    async def as_file(self, sha256: bytes) -> AsyncIterator[Path]:
        """A file on this machine, for the time of the block; raises as `open`."""
        async with AsyncExitStack() as stack:
            with _told(sha256):
                path = await stack.enter_async_context(self._store.as_file(sha256))
            yield path

    async def url(self, sha256: bytes, *, content_type: str, content_disposition: str) -> str | None:
        """Where a client may fetch a file itself, with these headers; None: from this server only."""
        try:
            return await self._store.url(sha256, content_type=content_type, content_disposition=content_disposition)
        except StoreUnavailable as error:
            logger.warning("No URL for a medium: %s", error)
            return None

    async def sweep(self) -> None:
        """Removes files that have no name, and what interrupted uploads have left."""
        await self._store.sweep_incoming(older_than_seconds=INCOMING_KEPT_SECONDS)
        count = _SWEPT_AT_ONCE
        while count == _SWEPT_AT_ONCE:
            before = self._clock.now_ms() - UNUSED_KEPT_MS
            async with self._db.connection() as conn:
                unused = await mark_unused_contents(conn, touched_before_ts=before, limit=_SWEPT_AT_ONCE)
            for sha256 in unused:
                await self._store.remove(sha256)
            async with self._db.connection() as conn:
                await delete_marked_contents(conn, unused)
            count = len(unused)

    async def _keep(self, incoming: IncomingFile, stored: StoredFile) -> None:
        """Notes a file and gives it its place, in this order: so the sweep knows of every file."""
        for _ in range(_REMOVAL_TRIES):
            async with self._db.connection() as conn:
                if await is_quarantined(conn, stored.sha256):
                    raise NotFound("The content has been quarantined")
                is_noted = await touch_content(
                    conn, stored.sha256, size_bytes=stored.size_bytes, now_ms=self._clock.now_ms()
                )
            if is_noted:
                with _told(stored.sha256):
                    await incoming.keep()
                return
            await self._clock.sleep(_REMOVAL_PAUSE_SECONDS)
        raise UnavailableForNow("The same content is being removed")


@contextmanager
def _told(sha256: bytes) -> Iterator[None]:
    """Turns what the store says into what clients are told."""
    try:
        yield
    except NoSuchBytes:
        logger.error("The bytes of a medium are not there: %s", sha256.hex())
        raise NotFound("The content is not there any more") from None
    except StoreUnavailable as error:
        logger.error("The store of media: %s", error)
        raise UnavailableForNow("The content cannot be stored or read at this moment") from None
