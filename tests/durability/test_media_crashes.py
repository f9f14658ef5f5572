"""The server is killed while media come: of what it has not acknowledged nothing is left after the sweep."""

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from storage.media import s3
from tests.processes import HomeserverProcess, homeserver
from tests.real_client import Client, new_user
from tests.s3_server import KEY, SECRET, Bucket
from tests.waiting import wait_until

LARGE = os.urandom(s3.PART_BYTES + 1_000_000)


@dataclass
class Repository:
    """A server as a process, and where its bytes are."""

    server: HomeserverProcess
    database_url: str
    bucket: Bucket | None

    @property
    def here(self) -> list[Path]:
        """Files on this machine."""
        return [path for path in (self.server.folder / "data" / "media").rglob("*") if path.is_file()]

    @property
    def files(self) -> list[str]:
        """All files and parts of files that there are."""
        parts = [] if self.bucket is None else [*self.bucket.keys, *self.bucket.unfinished]
        return [*map(str, self.here), *parts]

    async def execute(self, statement: str) -> None:
        """Changes something in the database behind the server's back."""
        connection = await asyncpg.connect(self.database_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def restart_in_an_hour(self) -> None:
        """Starts the server again, when what was left is old enough, and nobody holds the right to sweep."""
        for path in self.here:
            os.utime(path, (time.time() - 3700,) * 2)
        await self.execute("UPDATE media_contents SET touched_ts = touched_ts - 700000")
        await self.execute("DELETE FROM leases")
        await self.server.start()

    async def until_swept(self) -> None:
        """Waits until nothing is left."""
        await wait_until(lambda: not self.files, seconds_max=20)


@pytest.fixture(params=["files", "s3"])
async def repository(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> AsyncIterator[Repository]:
    """An empty one."""
    bucket: Bucket | None = None
    media: dict[str, Any] = {}
    if request.param == "s3":
        bucket = request.getfixturevalue("bucket")
        settings = {
            "bucket": bucket.name,
            "endpoint_url": bucket.url,
            "path_style": True,
            "access_key_id": KEY,
            "secret_access_key": SECRET,
        }
        media = {"storage": "s3", "s3": settings}
    async with homeserver(tmp_path / "server", database_url, media=media) as server:
        yield Repository(server, database_url, bucket)


async def upload(client: Client, data: Any) -> str:
    headers = {"Authorization": f"Bearer {client.token}"}
    async with client.http.post(f"{client.url}/_matrix/media/v3/upload", data=data, headers=headers) as response:
        assert response.status == 200, await response.text()
        uri: str = (await response.json())["content_uri"]
        return uri.removeprefix("mxc://")


async def download(client: Client, path: str) -> bytes:
    headers = {"Authorization": f"Bearer {client.token}"}
    url = f"{client.url}/_matrix/client/v1/media/download/{path}"
    async with client.http.get(url, headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.read()


# What comes is written to a folder first, whatever the store.
@pytest.mark.parametrize("repository", ["files"], indirect=True)
async def test_killed_in_the_middle_of_an_upload(repository: Repository) -> None:
    server = repository.server

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65_536
            await asyncio.sleep(0.01)

    async with new_user(server.url, "alice") as client:
        kept = await upload(client, io.BytesIO(LARGE))
        before = repository.files
        async with asyncio.TaskGroup() as group:
            uploading = group.create_task(_failing(upload(client, endless())))
            await wait_until(
                lambda: any(path.parent.name == "incoming" and path.stat().st_size for path in repository.here)
            )
            await server.kill()
        assert uploading.result(), "it was not acknowledged"
        assert len(repository.files) == len(before) + 1, "the kill has left something"
        await repository.restart_in_an_hour()
        await wait_until(lambda: len(repository.files) == len(before), seconds_max=20)
        assert await download(client, kept) == LARGE


async def test_killed_between_the_bytes_and_the_row(repository: Repository) -> None:
    server = repository.server
    async with new_user(server.url, "alice") as client:
        connection = await asyncpg.connect(repository.database_url)
        try:
            async with asyncio.TaskGroup() as group:
                async with connection.transaction():
                    await connection.execute("LOCK TABLE local_media IN SHARE MODE")
                    uploading = group.create_task(_failing(upload(client, io.BytesIO(LARGE))))
                    await wait_until(lambda: _has_its_place(repository), seconds_max=20)
                    await server.kill()
            assert uploading.result(), "it was not acknowledged"
        finally:
            await connection.close()
        assert len(repository.files) >= 1, "the kill has left something"
        await repository.restart_in_an_hour()
        await repository.until_swept()
        assert await download(client, await upload(client, io.BytesIO(LARGE))) == LARGE


def _has_its_place(repository: Repository) -> bool:
    """Whether a file is where it is to stay, and named next."""
    if repository.bucket is not None:
        return bool(repository.bucket.keys)
    return any(path.parent.name != "incoming" for path in repository.here)


async def _failing(work: Any) -> bool:
    """Whether something fails."""
    try:
        await work
    except aiohttp.ClientError:
        return True
    return False
