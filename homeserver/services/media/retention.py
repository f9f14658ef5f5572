"""How long media are kept: by age, by last use, by the space of all of them; and the sweep of what nothing names."""

import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from prometheus_client import Gauge

from homeserver.config.schema import MediaConfig
from homeserver.core.clock import Clock
from homeserver.core.ids import ServerName
from homeserver.services.media.contents import Contents
from storage.database import Connection, Database
from storage.errors import DatabaseError
from storage.leases import acquire_leases
from storage.local_media import (
    delete_expired_media,
    delete_least_used_local_media,
    delete_old_local_media,
    delete_old_preview_media,
    delete_unused_local_media,
    local_bytes,
)
from storage.media.base import StoreUnavailable
from storage.media_events import delete_media_of_redacted_events
from storage.remote_media import (
    delete_least_used_remote_media,
    delete_old_remote_media,
    delete_unused_remote_media,
    remote_bytes,
)
from storage.url_previews import delete_old_previews

logger = logging.getLogger(__name__)

MEDIA_BYTES: Final = Gauge(
    "heliograph_media_bytes",
    "The space of uploads, and of copies of other servers' files, as of the last sweep.",
    ["kind"],
    multiprocess_mode="livemostrecent",
)

INTERVAL_SECONDS: Final = 600.0
EXPIRED_KEPT_MS: Final = 86_400_000
"""How long a name whose upload never came is remembered after it has expired."""
PREVIEW_PICTURES_KEPT_MS: Final = 86_400_000
"""How long the pictures of previews are kept: clients look at them for longer than a preview is believed."""

_BATCH: Final = 500
_LEASE: Final = "media_retention"

_Delete = Callable[[Connection], Awaitable[int]]


class MediaRetention:
    """Sweeps every ten minutes, in one process at a time."""

    def __init__(
        self, *, db: Database, contents: Contents, config: MediaConfig, server_name: ServerName, clock: Clock
    ) -> None:
        self._db = db
        self._contents = contents
        self._config = config
        self._server_name = server_name
        self._clock = clock
        self._holder = secrets.token_urlsafe(9)

    async def run(self) -> None:
        """Sweeps until it is cancelled."""
        while True:
            try:
                async with self._db.connection() as conn:
                    duration_ms = int(INTERVAL_SECONDS * 1000)
                    is_ours = await acquire_leases(conn, [_LEASE], holder=self._holder, duration_ms=duration_ms)
                if is_ours:
                    await self.sweep()
            except (DatabaseError, StoreUnavailable, OSError) as error:
                logger.warning("Media were not swept: %s", error)
            await self._clock.sleep(INTERVAL_SECONDS)

    async def sweep(self) -> None:
        """Forgets what is past its time, then removes the files that nothing names."""
        for delete in self._deletions():
            count = _BATCH
            while count >= _BATCH:
                async with self._db.connection() as conn:
                    count = await delete(conn)
        await self._make_space()
        await self._contents.sweep()
        async with self._db.connection() as conn:
            MEDIA_BYTES.labels("local").set(await local_bytes(conn))
            MEDIA_BYTES.labels("remote").set(await remote_bytes(conn))

    def _deletions(self) -> list[_Delete]:
        """Everything that goes by time; each removes a batch."""
        now_ms, config = self._clock.now_ms(), self._config
        preview_ts = now_ms - max(config.url_previews.kept_ms, PREVIEW_PICTURES_KEPT_MS)
        deletions: list[_Delete] = [
            lambda conn: delete_expired_media(conn, expired_before_ts=now_ms - EXPIRED_KEPT_MS, limit=_BATCH),
            lambda conn: delete_old_previews(
                conn, fetched_before_ts=now_ms - config.url_previews.kept_ms, limit=_BATCH
            ),
            lambda conn: delete_old_preview_media(conn, created_before_ts=preview_ts, limit=_BATCH),
        ]
        if config.redacted_kept_ms is not None:
            redacted_ts = now_ms - config.redacted_kept_ms

            async def delete_redacted(conn: Connection) -> int:
                decided, gone = await delete_media_of_redacted_events(
                    conn, redacted_before_ts=redacted_ts, own_server=self._server_name, limit=_BATCH
                )
                if gone:
                    logger.info("%d media of redacted events are removed", gone)
                return decided

            deletions.append(delete_redacted)
        if config.local_unused_ms is not None:
            local_unused_ts = now_ms - config.local_unused_ms

            async def delete_unused(conn: Connection) -> int:
                deleted = await delete_unused_local_media(
                    conn,
                    before_ts=local_unused_ts,
                    larger_than_bytes=-1,
                    keep_profiles=True,
                    server_name=self._server_name,
                    limit=_BATCH,
                )
                return len(deleted)

            deletions.append(delete_unused)
        if config.local_age_ms is not None:
            local_ts = now_ms - config.local_age_ms
            deletions.append(lambda conn: delete_old_local_media(conn, created_before_ts=local_ts, limit=_BATCH))
        if config.remote_unused_ms is not None:
            unused_ts = now_ms - config.remote_unused_ms
            deletions.append(lambda conn: delete_unused_remote_media(conn, before_ts=unused_ts, limit=_BATCH))
        if config.remote_age_ms is not None:
            remote_ts = now_ms - config.remote_age_ms
            deletions.append(lambda conn: delete_old_remote_media(conn, fetched_before_ts=remote_ts, limit=_BATCH))
        return deletions

    async def _make_space(self) -> None:
        """Forgets what was not asked for longest, where all media together are more than they may be."""
        kinds = (
            (self._config.local_total_bytes_max, local_bytes, delete_least_used_local_media),
            (self._config.remote_total_bytes_max, remote_bytes, delete_least_used_remote_media),
        )
        for bytes_max, measure, delete in kinds:
            if bytes_max is None:
                continue
            count = 1
            while count:
                async with self._db.connection() as conn:
                    excess_bytes = await measure(conn) - bytes_max
                    count = await delete(conn, excess_bytes=excess_bytes, limit=_BATCH) if excess_bytes > 0 else 0
