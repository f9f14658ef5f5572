"""What operators do about media on the command line, beside a server that runs or without one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from homeserver.config.schema import Config
from homeserver.core.clock import Clock
from homeserver.core.ids import MxcUri, UserId
from homeserver.runtime.media_store import Storage, media_store
from homeserver.services.media.administration import MediaAdministration
from homeserver.services.media.contents import Contents
from homeserver.services.media.moving import Moved, move_contents
from storage.database import Database
from storage.local_media import LocalMedia
from storage.migrate import migrate
from storage.remote_media import RemoteMedia

BY: Final = "the command line"
"""Who quarantines, as it is told to administrators."""
DAY_MS: Final = 86_400_000


@asynccontextmanager
async def media_administration(config: Config, clock: Clock) -> AsyncIterator[MediaAdministration]:
    """The use cases, on a database that is brought up to date first; at the end, files without a name are removed.

    Raises:
        DatabaseError: the database is away, or of a newer program.
    """
    await migrate(config.database.url)
    async with Database(config.database.url, config.database) as db:
        yield MediaAdministration(db=db, server_name=config.server_name, clock=clock)
        async with media_store(config, clock) as store:
            await Contents(db=db, store=store, clock=clock).sweep()


async def list_media(
    config: Config, clock: Clock, *, user_id: UserId | None, remote: bool
) -> AsyncIterator[dict[str, Any]]:
    """All media of this server, of one of its users, or of other servers; times in milliseconds since the epoch."""
    async with media_administration(config, clock) as administration:
        if remote:
            async for copy in administration.all_remote():
                yield _remote_json(copy)
        else:
            async for media in administration.all_local(user_id):
                yield _local_json(config, media)


async def delete_media(config: Config, clock: Clock, uri: MxcUri) -> None:
    """Forgets a medium.

    Raises:
        NotFound: it is not here.
    """
    async with media_administration(config, clock) as administration:
        await administration.delete(uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused:
    """Which uploads are to go: those that nobody has asked for in some days, and that have more bytes than this."""

    days: int
    larger_than_bytes: int
    keep_profiles: bool


async def delete_unused(config: Config, clock: Clock, wish: Unused) -> AsyncIterator[int]:
    """Forgets uploads that nobody asks for; yields how many so far."""
    count = 0
    async with media_administration(config, clock) as administration:
        async for batch in administration.delete_unused(
            before_ts=clock.now_ms() - wish.days * DAY_MS,
            larger_than_bytes=wish.larger_than_bytes,
            keep_profiles=wish.keep_profiles,
        ):
            count += len(batch)
            yield count


async def purge_remote(config: Config, clock: Clock, *, days: int) -> AsyncIterator[int]:
    """Forgets media of other servers that nobody has asked for in some days; yields how many so far."""
    count = 0
    async with media_administration(config, clock) as administration:
        async for batch in administration.purge_remote(before_ts=clock.now_ms() - days * DAY_MS):
            count += batch
            yield count


async def quarantine(config: Config, clock: Clock, uri: MxcUri, *, release: bool) -> None:
    """Has nobody given a medium any more, or takes it out of quarantine.

    Raises:
        NotFound: it is not here.
    """
    async with media_administration(config, clock) as administration:
        if release:
            await administration.release(uri)
        else:
            await administration.quarantine(uri, by=BY)


async def move(config: Config, clock: Clock, *, storage: Storage) -> AsyncIterator[Moved]:
    """Brings all files to a store; those that the server does not use any more are removed from where they were.

    Raises:
        BytesDiffer, StoreUnavailable: it cannot go on.
    """
    other: Storage = "files" if storage == "s3" else "s3"
    await migrate(config.database.url)
    async with (
        Database(config.database.url, config.database) as db,
        media_store(config, clock, storage=other) as source,
        media_store(config, clock, storage=storage) as target,
    ):
        async for moved in move_contents(db, source, target, remove=config.media.storage == storage):
            yield moved


def media_line(media: dict[str, Any]) -> str:
    """A medium for people."""
    marks = [mark for mark in ("protected", "pending", "quarantined") if media.get(mark)]
    columns = [media["uri"], str(media["size_bytes"]), media["content_type"], media.get("user_id") or "", *marks]
    return " ".join(column for column in columns if column)


def _local_json(config: Config, media: LocalMedia) -> dict[str, Any]:
    return {
        "uri": f"mxc://{config.server_name}/{media.media_id}",
        "user_id": media.user_id,
        "size_bytes": media.size_bytes,
        "content_type": media.content_type,
        "file_name": media.file_name,
        "created_ts": media.created_ts,
        "last_access_ts": media.last_access_ts,
        "protected": media.protected,
        "pending": media.sha256 is None,
        "quarantined": media.quarantined_by is not None,
    }


def _remote_json(media: RemoteMedia) -> dict[str, Any]:
    return {
        "uri": f"mxc://{media.server_name}/{media.media_id}",
        "size_bytes": media.size_bytes,
        "content_type": media.content_type,
        "file_name": media.file_name,
        "fetched_ts": media.fetched_ts,
        "last_access_ts": media.last_access_ts,
        "quarantined": media.quarantined_by is not None,
    }
