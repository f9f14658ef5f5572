"""Files of media in a folder: whole or not at all."""

import asyncio
import gc
import hashlib
import os
import threading
from pathlib import Path

import pytest

from storage.media.base import NoSuchBytes
from storage.media.filesystem import FileSystemBytes


@pytest.fixture
def store(tmp_path: Path) -> FileSystemBytes:
    """An empty store."""
    return FileSystemBytes(tmp_path / "media")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


async def written(store: FileSystemBytes, *parts: bytes) -> bytes:
    async with store.incoming() as incoming:
        for part in parts:
            await incoming.write(part)
        sha256, _ = await incoming.finish()
        await incoming.keep()
    return sha256


async def read(store: FileSystemBytes, sha256: bytes, *, start: int = 0, length: int | None = None) -> bytes:
    opened = await store.open(sha256, start=start, length=length)
    return b"".join([data async for data in opened])


async def test_a_file_lies_by_its_hash(store: FileSystemBytes, tmp_path: Path) -> None:
    parts = [b"a" * 100_000, b"b" * 700_000, b"c"]
    sha256 = await written(store, *parts)
    assert sha256 == hashlib.sha256(b"".join(parts)).digest()
    name = sha256.hex()
    place = tmp_path / "media" / "content" / name[:2] / name
    assert place.read_bytes() == b"".join(parts)
    assert files(tmp_path) == [name]
    assert place.stat().st_mode & 0o077 == 0
    assert await read(store, sha256) == b"".join(parts)
    assert await read(store, sha256, start=799_999, length=2) == b"bc"
    async with store.as_file(sha256) as path:
        assert path == place


async def test_nothing_is_left_of_a_file_that_was_not_kept(store: FileSystemBytes, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        async with store.incoming() as incoming:
            await incoming.write(b"x" * 1_000_000)
            assert len(files(tmp_path)) == 1
            raise KeyError
    async with store.incoming() as incoming:
        await incoming.write(b"x")
        await incoming.finish()
    assert files(tmp_path) == []


async def test_whoever_is_cancelled_while_a_thread_writes_leaves_nothing(
    store: FileSystemBytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the file, nor bytes in another one that has got its descriptor."""
    may_write, writes = threading.Event(), threading.Event()
    write = os.write

    def slowly(descriptor: int, data: bytes) -> int:
        writes.set()
        may_write.wait(10)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", slowly)

    async def bring() -> None:
        async with store.incoming() as incoming:
            await incoming.write(b"x" * 1_000_000)

    async with asyncio.TaskGroup() as group:
        bringing = group.create_task(bring())
        assert await asyncio.to_thread(writes.wait, 10)
        bringing.cancel()
        await asyncio.sleep(0.05)
        assert not bringing.done(), "the file is not discarded while it is written"
        may_write.set()
    assert bringing.cancelled()
    assert files(tmp_path) == []


async def test_the_same_bytes_twice(store: FileSystemBytes, tmp_path: Path) -> None:
    assert await written(store, b"same") == await written(store, b"sa", b"me")
    assert len(files(tmp_path)) == 1


async def test_what_is_removed_while_it_is_read_is_read_to_its_end(store: FileSystemBytes, tmp_path: Path) -> None:
    sha256 = await written(store, b"x" * 1_000_000)
    opened = await store.open(sha256)
    await store.remove(sha256)
    assert files(tmp_path) == []
    assert len(b"".join([data async for data in opened])) == 1_000_000
    with pytest.raises(NoSuchBytes):
        await store.open(sha256)
    with pytest.raises(NoSuchBytes):
        async with store.as_file(sha256):
            pass
    await store.remove(sha256)


async def test_a_file_that_nobody_reads_is_closed(store: FileSystemBytes) -> None:
    sha256 = await written(store, b"x")
    before = len(os.listdir("/proc/self/fd"))
    opened = await store.open(sha256)
    await opened.aclose()
    assert [data async for data in opened] == []
    dropped = await store.open(sha256)
    del dropped
    await store.remove(sha256)  # the thread lets go of what it has done last
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_what_interrupted_writers_leave_is_swept(store: FileSystemBytes, tmp_path: Path) -> None:
    """Lesson of kill -9: only files that nobody writes to any more."""
    async with store.incoming() as incoming:
        await incoming.write(b"x" * 600_000)
        abandoned = tmp_path / "media" / "incoming" / "abandoned"
        abandoned.write_bytes(b"y")
        os.utime(abandoned, (0, 0))
        assert await store.sweep_incoming(older_than_seconds=3600) == 1
        assert len(files(tmp_path)) == 1
        await incoming.finish()
    assert await FileSystemBytes(tmp_path / "absent").sweep_incoming(older_than_seconds=1) == 0
