"""Files that are being written, where nobody sees them: each is gone in the end, unless it has got its place."""

import asyncio
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_WRITE_BYTES: Final = 512 * 1024


class Spool:
    """A folder of such files, which is made when it is first needed; several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self) -> "SpooledFile":
        """A new, empty file; who asks for it must `discard` it in the end."""
        return SpooledFile(self._folder / secrets.token_hex(16))

    async def sweep(self, *, older_than_seconds: float) -> int:
        """Removes files that nobody has written to for so long; returns how many."""
        return await asyncio.to_thread(self._sweep, older_than_seconds)

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
    """One of them. Pieces are gathered and written by a thread; a small file is written at once when it is finished.

    Whoever writes may be cancelled while the thread still works, so it and the one that discards the file take turns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._turn = threading.Lock()
        self._descriptor: int | None = None
        self._may_be_there = False
        self._is_discarded = False

    @property
    def sha256(self) -> bytes:
        """The hash of what has been written."""
        return self._digest.digest()

    async def write(self, data: bytes) -> None:
        """Adds some bytes."""
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes >= _WRITE_BYTES:
            self._may_be_there = True
            await asyncio.to_thread(self._append, self._take_gathered())

    async def finish(self, *, sync: bool) -> None:
        """Writes the rest, and makes it safe on disk if it is to stay there."""
        self._may_be_there = True
        await asyncio.to_thread(self._finish, self._take_gathered(), sync)

    def release(self) -> None:
        """Says that the file has got another place: `discard` leaves it alone."""
        self._may_be_there = False

    async def discard(self) -> None:
        """Removes the file, unless it has got another place."""
        if self._may_be_there:
            await asyncio.to_thread(self._discard)

    def _take_gathered(self) -> bytes:
        gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
        return b"".join(gathered)

    def _append(self, data: bytes) -> None:
        with self._turn:
            if not self._is_discarded:
                self._write(data)

    def _finish(self, data: bytes, sync: bool) -> None:
        with self._turn:
            if not self._is_discarded:
                descriptor = self._write(data)
                if sync:
                    os.fsync(descriptor)
                self._close()

    def _discard(self) -> None:
        with self._turn:
            self._is_discarded = True
            self._close()
            self.path.unlink(missing_ok=True)

    def _write(self, data: bytes) -> int:
        descriptor = self._descriptor
        if descriptor is None:
            descriptor = self._descriptor = _new_file(self.path)
        self._digest.update(data)
        self.size_bytes += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        return descriptor

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _new_file(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o600)
