"""Brings files from one store to another, while the server runs on either of them.

What is there already is passed over, so that what was interrupted goes on.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from storage.database import Database
from storage.media.base import MediaBytes, NoSuchBytes
from storage.media_contents import list_contents

AT_ONCE: Final = 4
_PAGE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """How far it has come: files that were looked at, those that were brought, and those that are in neither store."""

    seen: int = 0
    brought: int = 0
    missing: int = 0


class BytesDiffer(Exception):
    """A file is not what its name says; it was left where it is."""


async def move_contents(db: Database, source: MediaBytes, target: MediaBytes, *, remove: bool) -> AsyncIterator[Moved]:
    """Brings all files that are noted from one store to another; tells now and then how far it has come.

    Args:
        db: knows the files.
        source: where they are.
        target: where they are to be.
        remove: remove each from the source once it is in the target.

    Raises:
        BytesDiffer: a file is damaged.
        StoreUnavailable: a store does not answer.
    """
    moved, after = Moved(), b""
    turns = asyncio.Semaphore(AT_ONCE)

    async def move(sha256: bytes) -> bool | None:
        async with turns:
            brought = await _bring(source, target, sha256)
            if remove and brought is not None:
                await source.remove(sha256)
            return brought

    while True:
        async with db.connection() as conn:
            page = await list_contents(conn, after=after, limit=_PAGE)
        if not page:
            return
        after = page[-1]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(move(sha256)) for sha256 in page]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        outcomes = [task.result() for task in tasks]
        moved = Moved(
            seen=moved.seen + len(outcomes),
            brought=moved.brought + outcomes.count(True),
            missing=moved.missing + outcomes.count(None),
        )
        yield moved


async def _bring(source: MediaBytes, target: MediaBytes, sha256: bytes) -> bool | None:
    """Brings one; False if it is there already, None if it is nowhere."""
    if await _has(target, sha256):
        return False
    try:
        opened = await source.open(sha256)
    except NoSuchBytes:
        return None
    async with aclosing(opened), target.incoming() as incoming:
        async for data in opened:
            await incoming.write(data)
        found, _ = await incoming.finish()
        if found != sha256:
            raise BytesDiffer(f"The file {sha256.hex()} has other bytes than it should have")
        await incoming.keep()
    return True


async def _has(store: MediaBytes, sha256: bytes) -> bool:
    try:
        opened = await store.open(sha256, length=1)
    except NoSuchBytes:
        return False
    await opened.aclose()
    return True
