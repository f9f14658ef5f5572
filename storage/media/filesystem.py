"""Keeps the bytes of media in a folder: `content/ab/cd/<SHA-256>`; what is being written lies in `incoming`.

Both are in one file system, so that a file gets its place by a rename: it is there whole or not at all. It is synced to
disk before that, and its folder after it.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
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
        file = await self._spool.create()
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
        return self._contents / name[:2] / name[2:4] / name


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


def _place(path: Path, place: Path) -> None:
    new_folders = []
    for folder in (place.parent, *place.parent.parents):
        if folder.is_dir():
            break
        new_folders.append(folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    path.replace(place)
    for folder in (place.parent, *(folder.parent for folder in new_folders)):
        with _opened_folder(folder) as descriptor:
            os.fsync(descriptor)


@contextmanager
def _opened_folder(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
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
