"""Media with matrix-nio's client, of a server that runs as a process; and how much memory large files take."""

import io
import os
from collections.abc import AsyncIterator

import aiohttp
import psutil
import pytest
from nio import AsyncClient, ContentRepositoryConfigResponse, MemoryDownloadResponse, ThumbnailResponse, UploadResponse
from PIL import Image

from tests.clients.nio_clients import good
from tests.processes import HomeserverProcess

LARGE_BYTES = 48 * 1024 * 1024
BLOCK = os.urandom(1024 * 1024)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:nio.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:aiohttp.*"),
]


def picture() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (800, 400), (10, 20, 30)).save(data, "PNG")
    return data.getvalue()


async def test_a_picture(alice: AsyncClient, bob: AsyncClient) -> None:
    limit = good(await alice.content_repository_config(), ContentRepositoryConfigResponse).upload_size
    assert limit == 50 * 1024 * 1024
    data = picture()
    sent, _ = await alice.upload(io.BytesIO(data), "image/png", "a.png", filesize=len(data))
    uri = good(sent, UploadResponse).content_uri
    got = good(await bob.download(uri), MemoryDownloadResponse)
    assert (got.body, got.content_type, got.filename) == (data, "image/png", "a.png")
    server_name, _, media_id = uri.removeprefix("mxc://").partition("/")
    small = good(await bob.thumbnail(server_name, media_id, 96, 96), ThumbnailResponse)
    assert Image.open(io.BytesIO(small.body)).size == (96, 48)


async def test_large_files_take_little_memory(server: HomeserverProcess, alice: AsyncClient) -> None:
    """They flow through; the server holds a few pieces of each at a time."""
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    headers = {"Authorization": f"Bearer {alice.access_token}"}
    measured: list[int] = []

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(LARGE_BYTES // len(BLOCK)):
            measured.append(process.memory_info().rss)
            yield BLOCK

    async with aiohttp.ClientSession(headers=headers) as http:
        before = process.memory_info().rss
        async with http.post(f"{server.url}/_matrix/media/v3/upload", data=blocks()) as response:
            assert response.status == 200, await response.text()
            uri = (await response.json())["content_uri"].removeprefix("mxc://")
        size_bytes = 0
        async with http.get(f"{server.url}/_matrix/client/v1/media/download/{uri}") as response:
            async for data in response.content.iter_chunked(len(BLOCK)):
                size_bytes += len(data)
                measured.append(process.memory_info().rss)
    assert size_bytes == LARGE_BYTES
    assert max(measured) - before < 24 * 1024 * 1024
