"""Previews of pages: what a page says of itself, with its picture kept here so that readers do not ask its host.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from homeserver.config.schema import UrlPreviewsConfig
from homeserver.core.canonical_json import parse_json
from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden, InvalidParam, MatrixError, RemoteUnavailable
from homeserver.core.glob import GlobSet
from homeserver.core.ids import ServerName, UserId
from homeserver.core.media_types import SNIFFED_BYTES, clean_content_type, sniff_picture
from homeserver.services.media.contents import Contents, StoredFile
from homeserver.services.media.picture_processes import PictureProcesses
from homeserver.services.media.ports import PageUnavailable, WebPage, WebPages
from homeserver.services.media.preview_page import PageSummary, read_page
from homeserver.services.media.single_flight import SingleFlight
from homeserver.services.media.uploads import new_media_id
from storage.database import Database
from storage.local_media import NewMedia, insert_local_media
from storage.url_previews import find_preview, keep_preview

URL_CHARACTERS_MAX: Final = 2048
FETCH_SECONDS_MAX: Final = 10.0
"""For each of the page, what it says of itself elsewhere, and its picture."""
PREVIEW_SECONDS_MAX: Final = 30.0
AT_ONCE_MAX: Final = 16
READ_BYTES_MAX: Final = 1024 * 1024
"""How much of a page is looked at."""
OEMBED_BYTES_MAX: Final = 256 * 1024

_LANGUAGE: Final = re.compile(r"[A-Za-z0-9*,;=. -]{1,100}")
_CHARSET: Final = re.compile(r"charset\s*=\s*\"?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_PAGES: Final = frozenset(("text/html", "application/xhtml+xml"))
_PICTURE_TYPES: Final = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
}


@dataclass(frozen=True, slots=True)
class _Wish:
    """Which preview, and for whom its picture is kept first."""

    url: str
    language: str
    user_id: UserId


class UrlPreviews:
    """Makes previews, one at a time for each page, and keeps them for a while."""

    def __init__(
        self,
        *,
        db: Database,
        contents: Contents,
        processes: PictureProcesses,
        pages: WebPages,
        config: UrlPreviewsConfig,
        server_name: ServerName,
        require_authentication: bool,
        clock: Clock,
    ) -> None:
        self._db = db
        self._contents = contents
        self._processes = processes
        self._pages = pages
        self._config = config
        self._server_name = server_name
        self._require_authentication = require_authentication
        self._clock = clock
        self._allowed = GlobSet.compile(config.allowed_urls, ignore_case=True) if config.allowed_urls else None
        self._denied = GlobSet.compile(config.denied_urls, ignore_case=True)
        self._flights: SingleFlight[tuple[str, str]] = SingleFlight()
        self._slots = asyncio.Semaphore(AT_ONCE_MAX)

    async def preview(self, user_id: UserId, url: str, *, accept_language: str | None) -> str:
        """The preview of a page, as JSON.

        Args:
            user_id: who asks.
            url: of the page.
            accept_language: the languages that the asker wishes, as in HTTP.

        Raises:
            InvalidParam: that is no URL of a page.
            Forbidden: this page is not previewed.
            RemoteUnavailable: the page does not come.
        """
        url = self._checked(url)
        language = self._language(accept_language)
        kept = await self._kept(url, language)
        if kept is not None:
            return kept
        try:
            async with asyncio.timeout(PREVIEW_SECONDS_MAX), self._flights.turn((url, language)), self._slots:
                kept = await self._kept(url, language)
                return kept or await self._make(_Wish(url, language, user_id))
        except TimeoutError:
            raise RemoteUnavailable("The page takes too long") from None
        except PageUnavailable:
            raise RemoteUnavailable("The page does not come") from None

    def _checked(self, url: str) -> str:
        """The URL without what is never sent."""
        try:
            parts = urlsplit(url)
            is_page = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            raise InvalidParam("This is not a URL") from None
        if not is_page or len(url) > URL_CHARACTERS_MAX or parts.username is not None or parts.password is not None:
            raise InvalidParam("This is not the URL of a page")
        self._check_allowed(url)
        return parts._replace(fragment="").geturl()

    def _check_allowed(self, url: str) -> None:
        parts = urlsplit(url)
        name = f"{parts.hostname}{parts.path or '/'}"
        if self._denied.matches(name) or (self._allowed is not None and not self._allowed.matches(name)):
            raise Forbidden("This page is not previewed")

    def _language(self, accept_language: str | None) -> str:
        if accept_language is not None and _LANGUAGE.fullmatch(accept_language):
            return accept_language
        return ", ".join(self._config.languages)

    async def _kept(self, url: str, language: str) -> str | None:
        after_ts = self._clock.now_ms() - self._config.kept_ms
        async with self._db.connection() as conn:
            return await find_preview(conn, _key(url), language, fetched_after_ts=after_ts)

    async def _make(self, wish: _Wish) -> str:
        preview = json.dumps(await self._read(wish), ensure_ascii=False)
        async with self._db.connection() as conn:
            await keep_preview(conn, _key(wish.url), wish.language, preview=preview, now_ms=self._clock.now_ms())
        return preview

    async def _read(self, wish: _Wish) -> dict[str, Any]:
        async with self._open(wish, wish.url, self._config.page_bytes_max) as page:
            _check_found(page)
            self._check_allowed(page.url)
            content_type = page.headers.get("content-type", "")
            media_type = content_type.partition(";")[0].strip().lower()
            if media_type.startswith("image/"):
                return await self._picture(wish, page) or {}
            if media_type not in _PAGES:
                return {}
            content = await _beginning(page.chunks, READ_BYTES_MAX)
            url = page.url
        charset = _CHARSET.search(content_type)
        summary = await asyncio.to_thread(read_page, content, charset=charset[1] if charset else None, url=url)
        properties: dict[str, Any] = dict(summary.properties)
        properties.setdefault("og:url", url)
        image_url = await self._with_oembed(wish, summary, properties)
        if image_url is not None:
            properties |= await self._picture_at(wish, image_url)
        return properties

    async def _with_oembed(self, wish: _Wish, summary: PageSummary, properties: dict[str, Any]) -> str | None:
        """Adds what the page says of itself elsewhere, where it says nothing here; returns its picture's URL."""
        if summary.oembed_url is None or (summary.image_url is not None and "og:title" in properties):
            return summary.image_url
        try:
            async with self._open(wish, summary.oembed_url, OEMBED_BYTES_MAX) as page:
                _check_found(page)
                said = parse_json(await _beginning(page.chunks, OEMBED_BYTES_MAX), depth_max=10)
        except (PageUnavailable, MatrixError):
            return summary.image_url
        if not isinstance(said, Mapping):
            return summary.image_url
        for name, key in (("og:title", "title"), ("og:site_name", "provider_name"), ("og:author", "author_name")):
            if isinstance(said.get(key), str):
                properties.setdefault(name, said[key][:1000])
        picture = said.get("url") if said.get("type") == "photo" else said.get("thumbnail_url")
        return summary.image_url or (picture if isinstance(picture, str) else None)

    async def _picture_at(self, wish: _Wish, url: str) -> dict[str, Any]:
        """The properties of a page's picture; none if it does not come, for the preview goes without it."""
        try:
            async with self._open(wish, self._checked(url), self._config.page_bytes_max) as page:
                _check_found(page)
                return await self._picture(wish, page) or {}
        except (PageUnavailable, MatrixError):
            return {}

    async def _picture(self, wish: _Wish, page: WebPage) -> dict[str, Any] | None:
        """Keeps a picture; None if it is none that is known by its bytes."""
        head, chunks = await _peeked(page.chunks)
        kind = sniff_picture(head)
        if kind is None:
            return None
        media_id, content_type = new_media_id(), clean_content_type(_PICTURE_TYPES[kind])

        async def name(stored: StoredFile) -> None:
            media = NewMedia(
                media_id=media_id,
                user_id=wish.user_id,
                sha256=stored.sha256,
                size_bytes=stored.size_bytes,
                content_type=content_type,
                file_name=None,
                authenticated=self._require_authentication,
                is_preview=True,
            )
            async with self._db.connection() as conn:
                await insert_local_media(conn, media, now_ms=self._clock.now_ms())

        stored = await self._contents.take_in(chunks, bytes_max=self._config.page_bytes_max, name=name)
        found: dict[str, Any] = {
            "og:image": f"mxc://{self._server_name}/{media_id}",
            "og:image:type": content_type,
            "matrix:image:size": stored.size_bytes,
        }
        try:
            async with self._contents.as_file(stored.sha256) as path:
                found["og:image:width"], found["og:image:height"] = await self._processes.size(path)
        except MatrixError:
            return found  # its size is not known, that is all
        return found

    def _open(self, wish: _Wish, url: str, bytes_max: int) -> AbstractAsyncContextManager[WebPage]:
        return self._pages.open(
            url, accept_language=wish.language, bytes_max=bytes_max, timeout_seconds=FETCH_SECONDS_MAX
        )


def _key(url: str) -> bytes:
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()


def _check_found(page: WebPage) -> None:
    if page.status != 200:
        raise PageUnavailable(f"The page is answered with {page.status}")


async def _beginning(chunks: AsyncIterator[bytes], bytes_max: int) -> bytes:
    """The first bytes of a page; the rest is not read."""
    content = bytearray()
    async for chunk in chunks:
        content += chunk
        if len(content) >= bytes_max:
            break
    return bytes(content[:bytes_max])


async def _peeked(chunks: AsyncIterator[bytes]) -> tuple[bytes, AsyncIterator[bytes]]:
    """The first bytes, and all bytes."""
    head = bytearray()
    async for chunk in chunks:
        head += chunk
        if len(head) >= SNIFFED_BYTES:
            break

    async def whole() -> AsyncIterator[bytes]:
        yield bytes(head)
        async for chunk in chunks:
            yield chunk

    return bytes(head[:SNIFFED_BYTES]), whole()
