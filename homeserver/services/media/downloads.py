"""Finds media for those who ask: of this server, also before they are uploaded, and of others.

https://spec.matrix.org/v1.19/client-server-api/#content-repository
"""

from dataclasses import dataclass
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.errors import NotFound, NotYetUploaded
from homeserver.core.ids import MxcUri, ServerName
from homeserver.services.media.contents import Contents
from homeserver.services.media.remote_copies import RemoteCopies
from storage.database import Database
from storage.local_media import LocalMedia, find_local_media, note_local_access
from storage.media.base import OpenBytes
from storage.remote_media import note_remote_access

WAIT_MS_MAX: Final = 60_000
"""How long an upload that has not come yet is waited for, whatever the asker wants."""
ACCESS_NOTED_MS: Final = 3_600_000
"""How often, at most, it is noted that a medium was asked for."""

_LOOK_SECONDS_MIN: Final = 0.1
_LOOK_SECONDS_MAX: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who wants a medium.

    Attributes:
        name: for the rate of bytes that are fetched from other servers: a user id, or an address.
        authenticated: the asker has shown who it is.
        allow_remote: the medium may be fetched from another server.
        timeout_ms: how long an upload that has not come yet is waited for.
    """

    name: str
    authenticated: bool = True
    allow_remote: bool = True
    timeout_ms: int = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """A medium that is here."""

    sha256: bytes
    size_bytes: int
    content_type: str
    file_name: str | None
    is_local: bool


class Downloads:
    """What can be had."""

    def __init__(
        self,
        *,
        db: Database,
        contents: Contents,
        copies: RemoteCopies,
        server_name: ServerName,
        require_authentication: bool,
        clock: Clock,
    ) -> None:
        self._db = db
        self._require_authentication = require_authentication
        self._contents = contents
        self._copies = copies
        self._server_name = server_name
        self._clock = clock

    async def find(self, uri: MxcUri, asker: Asker) -> Medium:
        """A medium, of this server or another.

        Raises:
            NotFound: there is none, or the asker may not have it.
            NotYetUploaded: it was not uploaded in time.
            TooLarge, LimitExceeded, RemoteUnavailable, RemoteRefused: as for `RemoteCopies.find`.
        """
        if uri.server_name == self._server_name:
            return await self._find_local(uri, asker)
        return await self._find_remote(uri, asker)

    async def open(self, medium: Medium, *, start: int = 0, length: int | None = None) -> OpenBytes:
        """The bytes of a medium, or a part of them.

        Raises:
            NotFound: they are not there any more.
        """
        return await self._contents.open(medium.sha256, start=start, length=length)

    async def url(self, medium: Medium, *, content_disposition: str) -> str | None:
        """Where the asker may fetch a medium itself, for some minutes; None: from this server only."""
        return await self._contents.url(
            medium.sha256, content_type=medium.content_type, content_disposition=content_disposition
        )

    async def _find_local(self, uri: MxcUri, asker: Asker) -> Medium:
        media = await self._uploaded(uri.media_id, asker)
        assert media.sha256 is not None, "it was uploaded"
        _check_given(asker, authenticated=media.authenticated, is_quarantined=media.quarantined_by is not None)
        now_ms = self._clock.now_ms()
        if media.last_access_ts < now_ms - ACCESS_NOTED_MS:
            async with self._db.connection() as conn:
                await note_local_access(conn, uri.media_id, now_ms=now_ms)
        return Medium(
            sha256=media.sha256,
            size_bytes=media.size_bytes,
            content_type=media.content_type,
            file_name=media.file_name,
            is_local=True,
        )

    async def _find_remote(self, uri: MxcUri, asker: Asker) -> Medium:
        # What is fetched now is new: those who have not shown who they are would not be given it (S31).
        may_fetch = asker.allow_remote and (asker.authenticated or not self._require_authentication)
        fetch_for = asker.name if may_fetch else None
        timeout_ms = min(asker.timeout_ms, WAIT_MS_MAX)
        media = await self._copies.find(uri, fetch_for=fetch_for, timeout_ms=timeout_ms)
        _check_given(asker, authenticated=media.authenticated, is_quarantined=media.quarantined_by is not None)
        now_ms = self._clock.now_ms()
        if media.last_access_ts < now_ms - ACCESS_NOTED_MS:
            async with self._db.connection() as conn:
                await note_remote_access(conn, uri.server_name, uri.media_id, now_ms=now_ms)
        return Medium(
            sha256=media.sha256,
            size_bytes=media.size_bytes,
            content_type=media.content_type,
            file_name=media.file_name,
            is_local=False,
        )

    async def _uploaded(self, media_id: str, asker: Asker) -> LocalMedia:
        """A medium of this server once it is uploaded, within the asker's time."""
        ends = self._clock.monotonic() + min(asker.timeout_ms, WAIT_MS_MAX) / 1000
        pause_seconds = _LOOK_SECONDS_MIN
        while True:
            async with self._db.connection() as conn:
                media = await find_local_media(conn, media_id)
            if media is None or (media.sha256 is None and (media.expires_ts or 0) <= self._clock.now_ms()):
                raise NotFound("There is no such content")
            if media.sha256 is not None:
                return media
            left_seconds = ends - self._clock.monotonic()
            if left_seconds <= 0:
                raise NotYetUploaded("The content has not been uploaded yet")
            await self._clock.sleep(min(pause_seconds, left_seconds))
            pause_seconds = min(pause_seconds * 1.5, _LOOK_SECONDS_MAX)


def _check_given(asker: Asker, *, authenticated: bool, is_quarantined: bool) -> None:
    if is_quarantined:
        raise NotFound("The content has been quarantined")
    if authenticated and not asker.authenticated:
        raise NotFound("This content is given only to those who show who they are")
