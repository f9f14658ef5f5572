"""Copies of other servers' media: fetched when somebody here asks for them first, then kept.

https://spec.matrix.org/v1.19/server-server-api/#content-repository
"""

import asyncio
from collections import OrderedDict
from copy import copy
from typing import Final

from homeserver.config.schema import MediaConfig
from homeserver.core.clock import Clock
from homeserver.core.content_disposition import clean_file_name
from homeserver.core.errors import MatrixError, NotFound, RemoteRefused, RemoteUnavailable, TooLarge
from homeserver.core.ids import MxcUri
from homeserver.core.media_types import clean_content_type
from homeserver.services.media.byte_rates import ByteRates, Count
from homeserver.services.media.contents import Contents, StoredFile
from homeserver.services.media.ports import RemoteFile, RemoteMediaSource
from homeserver.services.media.single_flight import SingleFlight
from storage.database import Database
from storage.remote_media import RemoteMedia, find_remote_media, insert_remote_media

FETCHES_MAX: Final = 32
"""How many media a process fetches at once."""
WAIT_SECONDS_MAX: Final = 30.0
"""How long one waits for a turn."""
FAILURE_KEPT_SECONDS: Final = 30.0
"""For how long a medium that did not come is not asked for again."""

_FAILURES_MAX: Final = 10_000
_NOT_THERE: Final = 404
_NOT_YET: Final = "M_NOT_YET_UPLOADED"
_TOO_LARGE: Final = "M_TOO_LARGE"


class RemoteCopies:
    """Fetches media, each once however many ask for it at the same time."""

    def __init__(
        self,
        *,
        db: Database,
        contents: Contents,
        source: RemoteMediaSource,
        rates: ByteRates,
        config: MediaConfig,
        clock: Clock,
    ) -> None:
        self._db = db
        self._contents = contents
        self._source = source
        self._rates = rates
        self._config = config
        self._clock = clock
        self._flights: SingleFlight[MxcUri] = SingleFlight()
        self._slots = asyncio.Semaphore(FETCHES_MAX)
        self._failures: OrderedDict[MxcUri, tuple[float, MatrixError]] = OrderedDict()

    async def find(self, uri: MxcUri, *, fetch_for: str | None, timeout_ms: int) -> RemoteMedia:
        """A medium of another server.

        Args:
            uri: which.
            fetch_for: who asks, for the rate of bytes; None if it must be here already.
            timeout_ms: how long the other server may wait for an upload to come.

        Raises:
            NotFound: it does not exist, or is not here.
            TooLarge: it is larger than what is kept here (502).
            LimitExceeded: too much has been fetched for the asker.
            RemoteUnavailable, RemoteRefused: the other server does not give it.
        """
        found = await self._kept(uri)
        if found is not None:
            return found
        if fetch_for is None:
            raise NotFound("The content is not here")
        self._raise_failure(uri)
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX) as waiting, self._flights.turn(uri), self._slots:
                waiting.reschedule(None)
                found = await self._kept(uri)
                if found is None:
                    self._raise_failure(uri)
                    found = await self._fetch(uri, fetch_for, timeout_ms)
        except TimeoutError:
            raise RemoteUnavailable("Too much is being fetched") from None
        return found

    async def _kept(self, uri: MxcUri) -> RemoteMedia | None:
        async with self._db.connection() as conn:
            return await find_remote_media(conn, uri.server_name, uri.media_id)

    async def _fetch(self, uri: MxcUri, fetch_for: str, timeout_ms: int) -> RemoteMedia:
        bytes_max = self._config.remote_bytes_max
        try:
            async with (
                self._rates.counting(fetch_for) as count,
                self._source.open(uri, bytes_max=bytes_max, timeout_ms=timeout_ms) as file,
            ):
                return await self._store(uri, file, count)
        except (RemoteUnavailable, RemoteRefused, TooLarge) as error:
            if isinstance(error, RemoteRefused) and error.remote_errcode == _NOT_YET:
                raise
            told = _told(error)
            self._remember_failure(uri, told)
            raise told from error

    async def _store(self, uri: MxcUri, file: RemoteFile, count: Count) -> RemoteMedia:
        made: RemoteMedia | None = None

        async def name(stored: StoredFile) -> None:
            nonlocal made
            now_ms = self._clock.now_ms()
            made = RemoteMedia(
                server_name=uri.server_name,
                media_id=uri.media_id,
                sha256=stored.sha256,
                size_bytes=stored.size_bytes,
                content_type=clean_content_type(file.content_type),
                file_name=clean_file_name(file.file_name),
                fetched_ts=now_ms,
                last_access_ts=now_ms,
                authenticated=self._config.require_authentication,
            )
            async with self._db.connection() as conn:
                await insert_remote_media(conn, made)

        await self._contents.take_in(file.chunks, bytes_max=self._config.remote_bytes_max, name=name, count=count)
        assert made is not None, "what was taken in has been named"
        return made

    def _raise_failure(self, uri: MxcUri) -> None:
        until, error = self._failures.get(uri, (0.0, None))
        if error is not None and until > self._clock.monotonic():
            raise copy(error)

    def _remember_failure(self, uri: MxcUri, error: MatrixError) -> None:
        self._failures[uri] = (self._clock.monotonic() + FAILURE_KEPT_SECONDS, error)
        self._failures.move_to_end(uri)
        if len(self._failures) > _FAILURES_MAX:
            self._failures.popitem(last=False)


def _told(error: MatrixError) -> MatrixError:
    """What the asker is told of another server's failure."""
    if isinstance(error, RemoteRefused):
        if error.status == _NOT_THERE:
            return NotFound("The other server does not have this content")
        if error.remote_errcode == _TOO_LARGE:
            return TooLarge("The content is too large to be served", status=502)
        return RemoteUnavailable(error.message)
    if isinstance(error, TooLarge):
        return TooLarge("The content of the other server is too large", status=502)
    return RemoteUnavailable(error.message)
