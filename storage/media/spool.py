"""Files that are being written, where nobody sees them: each is gone in the end, unless it has got its place."""

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_WRITE_BYTES: Final = 256 * 1024


class Spool:
    """A folder of such files, which is made when it is first needed; several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def create(self) -> "SpooledFile":
        """A new, empty file; who asks for it must `discard` it in the end."""
        return await asyncio.to_thread(self._create)

    async def sweep(self, *, older_than_seconds: float) -> int:
        """Removes files that nobody has written to for so long; returns how many."""
        return await asyncio.to_thread(self._sweep, older_than_seconds)

    def _create(self) -> "SpooledFile":
        self._folder.mkdir(parents=True, exist_ok=True)
        return SpooledFile(self._folder / secrets.token_hex(16))

    def _sweep(self, older_than_seconds: float) -> int:
        # Compared with the times of files, so it is the system's clock that counts.
        written_before = time.time() - older_than_seconds  # noqa: TID251
        count = 0
        for entry in self._entries():
            if entry.stat().st_mtime < written_before:
                Path(entry).unlink(missing_ok=True)
                count += 1
        return count

    def _entries(self) -> Iterator["os.DirEntry[str]"]:
        if self._folder.is_dir():
            with os.scandir(self._folder) as entries:
                yield from entries


class SpooledFile:
    """One of them. Small pieces are gathered, and written by a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._digest = hashlib.sha256()
        self._gathered = bytearray()

    @property
    def sha256(self) -> bytes:
        """The hash of what has been written."""
        return self._digest.digest()

    async def write(self, data: bytes) -> None:
        """Adds some bytes."""
        self._gathered += data
        if len(self._gathered) >= _WRITE_BYTES:
            await self._flush()

    async def finish(self, *, sync: bool) -> None:
        """Writes the rest, and makes it safe on disk if it is to stay there."""
        await self._flush()
        await asyncio.to_thread(self._close, sync=sync)

    async def discard(self) -> None:
        """Removes the file, unless it has got another place."""
        await asyncio.to_thread(self._discard)

    async def _flush(self) -> None:
        gathered, self._gathered = bytes(self._gathered), bytearray()
        if gathered:
            await asyncio.to_thread(self._append, gathered)

    def _append(self, data: bytes) -> None:
        assert self._descriptor is not None, "the file is finished"
        self._digest.update(data)
        self.size_bytes += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def _close(self, *, sync: bool) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                if sync:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _discard(self) -> None:
        self._close(sync=False)
        self.path.unlink(missing_ok=True)
