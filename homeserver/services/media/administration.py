"""What administrators do about media: list, remove, quarantine, protect.

A quarantine holds for the bytes: under every name, and if they are uploaded again.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.errors import NotFound
from homeserver.core.ids import MxcUri, RoomId, ServerName, UserId
from storage.database import Database
from storage.local_media import (
    LocalMedia,
    Order,
    delete_local_media,
    delete_unused_local_media,
    find_local_media,
    list_local_media,
    list_media_of_user,
    protect_local_media,
    usage_of_user,
)
from storage.media_contents import list_contents_of_user, quarantine_contents, release_contents
from storage.media_events import contents_of_media, delete_media_of_room, list_media_of_room
from storage.remote_media import (
    RemoteMedia,
    delete_remote_media,
    delete_unused_remote_media,
    find_remote_media,
    list_remote_media,
)

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class MediaPage:
    """A page of a user's media, and how many there are in all."""

    media: Sequence[LocalMedia]
    total: int


class MediaAdministration:
    """The use cases; the files themselves go when the sweep comes by (`Contents.sweep`)."""

    def __init__(self, *, db: Database, server_name: ServerName, clock: Clock) -> None:
        self._db = db
        self._server_name = server_name
        self._clock = clock

    async def list_of_user(
        self, user_id: UserId, *, order: Order, descending: bool, offset: int, limit: int
    ) -> MediaPage:
        """A page of a user's media."""
        async with self._db.connection() as conn:
            media = await list_media_of_user(
                conn, user_id, order=order, descending=descending, offset=offset, limit=limit
            )
            total, _ = await usage_of_user(conn, user_id)
        return MediaPage(media, total)

    async def all_local(self, user_id: UserId | None = None) -> AsyncIterator[LocalMedia]:
        """All media of this server, or of one of its users."""
        after = ""
        while True:
            async with self._db.connection() as conn:
                page = await list_local_media(conn, after=after, user_id=user_id, limit=_PAGE)
            for media in page:
                yield media
            if len(page) < _PAGE:
                return
            after = page[-1].media_id

    async def all_remote(self) -> AsyncIterator[RemoteMedia]:
        """All media of other servers that are kept here."""
        after = ("", "")
        while True:
            async with self._db.connection() as conn:
                page = await list_remote_media(conn, after=after, limit=_PAGE)
            for media in page:
                yield media
            if len(page) < _PAGE:
                return
            after = (page[-1].server_name, page[-1].media_id)

    async def all_of_room(self, room_id: RoomId) -> AsyncIterator[MxcUri]:
        """All media that events of a room show, as far as this server can read them."""
        async for page in self._pages_of_room(room_id):
            for uri in page:
                yield uri

    async def delete(self, uri: MxcUri) -> None:
        """Forgets a medium.

        Raises:
            NotFound: it is not here.
        """
        async with self._db.connection() as conn:
            if uri.server_name == self._server_name:
                found = bool(await delete_local_media(conn, [uri.media_id]))
            else:
                found = await delete_remote_media(conn, uri.server_name, uri.media_id)
        if not found:
            raise NotFound("There is no such content")

    async def delete_of_user(
        self, user_id: UserId, *, order: Order, descending: bool, offset: int, limit: int
    ) -> Sequence[str]:
        """Forgets a page of a user's media; returns their ids."""
        page = await self.list_of_user(user_id, order=order, descending=descending, offset=offset, limit=limit)
        async with self._db.connection() as conn:
            return await delete_local_media(conn, [media.media_id for media in page.media])

    async def delete_of_room(self, room_id: RoomId) -> AsyncIterator[Sequence[str]]:
        """Forgets media of this server that a room shows, and neither another room nor a profile, a batch at a time."""
        while True:
            async with self._db.connection() as conn:
                deleted = await delete_media_of_room(conn, room_id, own_server=self._server_name, limit=_PAGE)
            if deleted:
                yield deleted
            if len(deleted) < _PAGE:
                return

    async def delete_unused(
        self, *, before_ts: int, larger_than_bytes: int, keep_profiles: bool
    ) -> AsyncIterator[Sequence[str]]:
        """Forgets media of this server that nobody has asked for since a time, a batch at a time; yields their ids."""
        while True:
            async with self._db.connection() as conn:
                deleted = await delete_unused_local_media(
                    conn,
                    before_ts=before_ts,
                    larger_than_bytes=larger_than_bytes,
                    keep_profiles=keep_profiles,
                    server_name=self._server_name,
                    limit=_PAGE,
                )
            if deleted:
                yield deleted
            if len(deleted) < _PAGE:
                return

    async def purge_remote(self, *, before_ts: int) -> AsyncIterator[int]:
        """Forgets media of other servers that nobody has asked for since a time; yields how many in each batch."""
        while True:
            async with self._db.connection() as conn:
                count = await delete_unused_remote_media(conn, before_ts=before_ts, limit=_PAGE)
            if count:
                yield count
            if count < _PAGE:
                return

    async def quarantine(self, uri: MxcUri, *, by: str) -> None:
        """Has nobody given a medium any more.

        Raises:
            NotFound: it is not here.
        """
        sha256 = await self._content_of(uri)
        async with self._db.connection() as conn:
            await quarantine_contents(conn, [sha256], by=by, now_ms=self._clock.now_ms())

    async def release(self, uri: MxcUri) -> None:
        """Takes a medium out of quarantine.

        Raises:
            NotFound: it is not here.
        """
        sha256 = await self._content_of(uri)
        async with self._db.connection() as conn:
            await release_contents(conn, [sha256])

    async def quarantine_user(self, user_id: UserId, *, by: str) -> int:
        """Quarantines what a user has uploaded, but for what is protected; returns how many files."""
        async with self._db.connection() as conn:
            sha256s = await list_contents_of_user(conn, user_id)
            await quarantine_contents(conn, sha256s, by=by, now_ms=self._clock.now_ms())
        return len(sha256s)

    async def quarantine_room(self, room_id: RoomId, *, by: str) -> int:
        """Quarantines what events of a room show, but for what is protected; returns how many files."""
        count = 0
        async for page in self._pages_of_room(room_id):
            async with self._db.connection() as conn:
                sha256s = await contents_of_media(conn, page, own_server=self._server_name)
                await quarantine_contents(conn, sha256s, by=by, now_ms=self._clock.now_ms())
            count += len(sha256s)
        return count

    async def protect(self, media_id: str, *, protected: bool) -> None:
        """Spares a medium from the quarantine of its user's and from retention, or no longer.

        Raises:
            NotFound: there is none.
        """
        async with self._db.connection() as conn:
            if not await protect_local_media(conn, media_id, protected=protected):
                raise NotFound("There is no such content")

    async def _pages_of_room(self, room_id: RoomId) -> AsyncIterator[Sequence[MxcUri]]:
        after = ("", "")
        while True:
            async with self._db.connection() as conn:
                page = await list_media_of_room(conn, room_id, after=after, limit=_PAGE)
            if page:
                yield page
            if len(page) < _PAGE:
                return
            after = (page[-1].server_name, page[-1].media_id)

    async def _content_of(self, uri: MxcUri) -> bytes:
        async with self._db.connection() as conn:
            media: LocalMedia | RemoteMedia | None
            if uri.server_name == self._server_name:
                media = await find_local_media(conn, uri.media_id)
            else:
                media = await find_remote_media(conn, uri.server_name, uri.media_id)
        if media is None or media.sha256 is None:
            raise NotFound("There is no such content")
        return media.sha256
