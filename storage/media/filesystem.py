"""Keeps the bytes of media in a folder: `content/ab/<SHA-256>`; what is being written lies in `incoming`.

Both are in one file system, so that a file gets its place by a rename: it is there whole or not at all. It is synced to
disk before that, and its folder after it.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from storage.media.base import READ_BYTES, NoSuchBytes
from storage.media.spool import Spool, SpooledFile


class FileSystemBytes:
    """A store in a folder, which is made when it is first written to; several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._contents = folder / "content"
        self._spool = Spool(folder / "incoming")

    @asynccontextmanager
    async def incoming(self) -> AsyncIterator["IncomingPath"]:
        """A new file aside; see `MediaBytes`."""
        file = self._spool.create()
        try:
            yield IncomingPath(file, self)
        finally:
            await file.discard()

    async def open(self, sha256: bytes, *, start: int = 0, length: int | None = None) -> "OpenPath":
        """Opens bytes for reading; see `MediaBytes`."""
        return await asyncio.to_thread(OpenPath.open, self.path_of(sha256), start, length)

    @asynccontextmanager
    async def as_file(self, sha256: bytes) -> AsyncIterator[Path]:
        """The file itself; see `MediaBytes`."""
        path = self.path_of(sha256)
        if not await asyncio.to_thread(path.is_file):
            raise NoSuchBytes(sha256.hex())
        yield path

    async def remove(self, sha256: bytes) -> None:
        """Removes bytes; see `MediaBytes`."""
        path = self.path_of(sha256)
        await asyncio.to_thread(path.unlink, missing_ok=True)

    async def sweep_incoming(self, *, older_than_seconds: float) -> int:
        """Removes what interrupted writers have left; see `MediaBytes`."""
        return await self._spool.sweep(older_than_seconds=older_than_seconds)

    async def url(self, sha256: bytes, *, content_type: str, content_disposition: str) -> str | None:
        """None: nobody can fetch files but from this server."""
        return None

    def path_of(self, sha256: bytes) -> Path:
        """Where bytes lie."""
        name = sha256.hex()
        return self._contents / name[:2] / name


class IncomingPath:
    """A file that is being written; see `IncomingFile`."""

    def __init__(self, file: SpooledFile, store: FileSystemBytes) -> None:
        self._file = file
        self._store = store

    async def write(self, data: bytes) -> None:
        """Adds some bytes."""
        await self._file.write(data)

    async def finish(self) -> tuple[bytes, int]:
        """Writes the rest and syncs; see `IncomingFile`."""
        await self._file.finish(sync=True)
        return self._file.sha256, self._file.size_bytes

    async def keep(self) -> None:
        """Renames the file to its place; see `IncomingFile`."""
        await asyncio.to_thread(_place, self._file.path, self._store.path_of(self._file.sha256))
        self._file.release()


def _place(path: Path, place: Path) -> None:
    try:
        path.replace(place)
    except FileNotFoundError:
        _make_folder(place.parent)
        path.replace(place)
    _sync_folder(place.parent)


def _make_folder(folder: Path) -> None:
    """Makes a folder and those above it; once the function returns, they are safe on disk."""
    new_folders = []
    for one in (folder, *folder.parents):
        if one.is_dir():
            break
        new_folders.append(one)
    folder.mkdir(parents=True, exist_ok=True)
    for one in new_folders:
        _sync_folder(one.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class OpenPath(AsyncGenerator[bytes, None]):
    """A file that is being read, or a part of it; see `OpenBytes`.

    It is open from the start: what is removed meanwhile can still be read to its end. A generator would open it only
    when it is first asked, and would not close it if it never is.
    """

    def __init__(self, descriptor: int, *, start: int, length: int | None) -> None:
        self._descriptor: int | None = descriptor
        self._position = start
        self._left = length

    @classmethod
    def open(cls, path: Path, start: int, length: int | None) -> "OpenPath":
        """Opens a file.

        Raises:
            NoSuchBytes: it is not there.
        """
        try:
            return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC), start=start, length=length)
        except FileNotFoundError:
            raise NoSuchBytes(path.name) from None

    async def asend(self, _: None) -> bytes:
        """The next piece; at the end the file is closed."""
        descriptor = self._descriptor
        if descriptor is not None:
            wanted = READ_BYTES if self._left is None else min(READ_BYTES, self._left)
            data = await asyncio.to_thread(os.pread, descriptor, wanted, self._position) if wanted else b""
            if data:
                self._position += len(data)
                self._left = None if self._left is None else self._left - len(data)
                return data
            self._close()
        raise StopAsyncIteration

    async def athrow(
        self,
        kind: Any,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
    ) -> bytes:
        """Closes the file, and lets the exception go on."""
        self._close()
        if isinstance(kind, BaseException):
            raise kind
        raise value if isinstance(value, BaseException) else kind()

    async def aclose(self) -> None:
        """Closes the file."""
        self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        # An answer that nobody waits for any more is dropped without being closed.
        self._close()
