"""Uploads: media that users bring, at once or for a name that they have been given before.

https://spec.matrix.org/v1.19/client-server-api/#content-repository
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from homeserver.config.schema import MediaConfig
from homeserver.core.clock import Clock
from homeserver.core.content_disposition import FILE_NAME_CHARACTERS_MAX, clean_file_name
from homeserver.core.errors import CannotOverwriteMedia, Forbidden, InvalidParam, LimitExceeded, NotFound, Unknown
from homeserver.core.ids import MxcUri, ServerName, UserId
from homeserver.core.media_types import clean_content_type
from homeserver.services.media.byte_rates import ByteRates
from homeserver.services.media.contents import Contents, StoredFile
from storage.database import Database
from storage.local_media import (
    LocalMedia,
    NewMedia,
    complete_pending_media,
    find_local_media,
    insert_local_media,
    insert_pending_media,
    usage_of_user,
)

UPLOAD_SECONDS_MAX: Final = 3600.0
"""For a whole upload; each part of it has a time of its own (`web/http.py`)."""

_ID_BYTES: Final = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What a user brings: who, the bytes as they come, and what is said of them."""

    user_id: UserId
    chunks: AsyncIterator[bytes]
    content_type: str | None
    file_name: str | None


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """A name for an upload to come, until a time in milliseconds."""

    uri: MxcUri
    expires_ts: int


class Uploads:
    """What users upload."""

    def __init__(
        self,
        *,
        db: Database,
        contents: Contents,
        rates: ByteRates,
        config: MediaConfig,
        server_name: ServerName,
        clock: Clock,
    ) -> None:
        self._db = db
        self._contents = contents
        self._rates = rates
        self._config = config
        self._server_name = server_name
        self._clock = clock

    async def upload(self, upload: Upload) -> MxcUri:
        """Stores an upload under a new name.

        Raises:
            TooLarge: it is larger than one may be.
            Forbidden: the user's quota is used up.
            LimitExceeded: the user has brought too much of late.
            InvalidParam: its name is too long.
        """
        media_id = new_media_id()

        async def name(stored: StoredFile) -> None:
            async with self._db.connection() as conn:
                await insert_local_media(conn, self._new(media_id, upload, stored), now_ms=self._clock.now_ms())

        await self._take_in(upload, name)
        return self._uri(media_id)

    async def create(self, user_id: UserId) -> PendingUpload:
        """Gives out a name for an upload to come.

        Raises:
            LimitExceeded: the user has too many of them.
            Forbidden: the user's quota is used up.
        """
        await self._check_quota(user_id)
        media_id, now_ms = new_media_id(), self._clock.now_ms()
        expires_ts = now_ms + self._config.pending_lifetime_ms
        async with self._db.connection() as conn:
            made = await insert_pending_media(
                conn,
                media_id,
                user_id=user_id,
                expires_ts=expires_ts,
                authenticated=self._config.require_authentication,
                pending_max=self._config.pending_per_user_max,
                now_ms=now_ms,
            )
        if not made:
            raise LimitExceeded("Too many uploads are pending", retry_after_ms=self._config.pending_lifetime_ms)
        return PendingUpload(self._uri(media_id), expires_ts)

    async def upload_to(self, uri: MxcUri, upload: Upload) -> None:
        """Stores an upload under a name that was given out.

        Raises:
            NotFound: there is no such name, or no longer.
            Forbidden: it was given to somebody else, or the user's quota is used up.
            CannotOverwriteMedia: it has its upload.
            TooLarge, LimitExceeded, InvalidParam: as for `upload`.
        """
        await self._check_pending(uri, upload.user_id)

        async def name(stored: StoredFile) -> None:
            async with self._db.connection() as conn:
                media = self._new(uri.media_id, upload, stored)
                done = await complete_pending_media(conn, media, now_ms=self._clock.now_ms())
            if not done:
                raise CannotOverwriteMedia("Something else was uploaded meanwhile")

        await self._take_in(upload, name)

    async def _take_in(self, upload: Upload, name: Callable[[StoredFile], Awaitable[None]]) -> None:
        if upload.file_name is not None and len(upload.file_name) > FILE_NAME_CHARACTERS_MAX:
            raise InvalidParam(f"A file name has at most {FILE_NAME_CHARACTERS_MAX} characters")
        left_bytes = await self._check_quota(upload.user_id)
        bytes_max = self._config.upload_bytes_max

        async def within_quota(stored: StoredFile) -> None:
            if left_bytes is not None and stored.size_bytes > left_bytes:
                raise Forbidden("The quota for uploads is used up")
            await name(stored)

        try:
            async with asyncio.timeout(UPLOAD_SECONDS_MAX), self._rates.counting(upload.user_id) as count:
                await self._contents.take_in(upload.chunks, bytes_max=bytes_max, name=within_quota, count=count)
        except TimeoutError:
            raise Unknown("The upload takes too long", status=408) from None

    async def _check_quota(self, user_id: UserId) -> int | None:
        """How many bytes a user may still bring; None: any number."""
        files_max, bytes_max = self._config.user_files_max, self._config.user_bytes_max
        if files_max is None and bytes_max is None:
            return None
        async with self._db.connection() as conn:
            files, size_bytes = await usage_of_user(conn, user_id)
        if (files_max is not None and files >= files_max) or (bytes_max is not None and size_bytes >= bytes_max):
            raise Forbidden("The quota for uploads is used up")
        return None if bytes_max is None else bytes_max - size_bytes

    async def _check_pending(self, uri: MxcUri, user_id: UserId) -> LocalMedia:
        async with self._db.connection() as conn:
            media = await find_local_media(conn, uri.media_id) if uri.server_name == self._server_name else None
        if media is None:
            raise NotFound("This media id was not given out")
        if media.user_id != user_id:
            raise Forbidden("This media id was given to somebody else")
        if media.sha256 is not None:
            raise CannotOverwriteMedia("This media id has its content")
        if media.expires_ts is not None and media.expires_ts <= self._clock.now_ms():
            raise NotFound("This media id has expired")
        return media

    def _new(self, media_id: str, upload: Upload, stored: StoredFile) -> NewMedia:
        return NewMedia(
            media_id=media_id,
            user_id=upload.user_id,
            sha256=stored.sha256,
            size_bytes=stored.size_bytes,
            content_type=clean_content_type(upload.content_type),
            file_name=clean_file_name(upload.file_name),
            authenticated=self._config.require_authentication,
        )

    def _uri(self, media_id: str) -> MxcUri:
        return MxcUri(f"mxc://{self._server_name}/{media_id}")


def new_media_id() -> str:
    """A name that nobody can guess."""
    return secrets.token_urlsafe(_ID_BYTES)
