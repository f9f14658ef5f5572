"""Media of another server: https://spec.matrix.org/v1.19/server-server-api/#content-repository."""

import asyncio
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from PIL import Image

from homeserver.config.schema import MediaConfig
from tests.federation.deployment import Deployment, Homeserver
from tests.federation.peer import Peer
from tests.federation.servers.conftest import Pair
from tests.real_client import Client

V1 = "/_matrix/client/v1/media"
DOWNLOAD = "GET /_matrix/federation/v1/media/download/{media_id}"


async def upload(client: Client, data: bytes, content_type: str = "text/plain", **query: str) -> str:
    """Uploads something; returns `server/media id`."""
    headers = {"Authorization": f"Bearer {client.token}", "Content-Type": content_type}
    url = f"{client.url}/_matrix/media/v3/upload"
    async with client.http.post(url, data=io.BytesIO(data), headers=headers, params=query) as response:
        assert response.status == 200, await response.text()
        uri: str = (await response.json())["content_uri"]
        return uri.removeprefix("mxc://")


async def download(
    client: Client, path: str, kind: str = "download", **query: Any
) -> tuple[int, bytes, Mapping[str, str]]:
    """Downloads `server/media id`."""
    headers = {"Authorization": f"Bearer {client.token}"}
    async with client.http.get(f"{client.url}{V1}/{kind}/{path}", headers=headers, params=query) as response:
        return response.status, await response.read(), response.headers


def files(server: Homeserver) -> list[Path]:
    return [path for path in (server.config.data_dir / "media").rglob("*") if path.is_file()]


async def test_a_file_of_another_server(pair: Pair) -> None:
    data = bytes(range(256)) * 5000
    path = await upload(pair.alice, data, "application/x-thing", filename="thing ü.bin")
    status, body, headers = await download(pair.bob, path)
    assert (status, body) == (200, data)
    assert headers["Content-Type"] == "application/x-thing"
    assert headers["Content-Disposition"] == "attachment; filename*=utf-8''thing%20%C3%BC.bin"
    assert len(files(pair.two)) == 1


async def test_an_empty_file(pair: Pair) -> None:
    path = await upload(pair.alice, b"")
    assert (await download(pair.bob, path))[:2] == (200, b"")


async def test_it_is_fetched_once_and_kept(pair: Pair) -> None:
    path = await upload(pair.alice, b"Hello")
    asked = pair.deployment.network.line(pair.two.name, pair.one.name)
    before = asked.asked
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(download(pair.bob, path)) for _ in range(5)]
    assert [task.result()[1] for task in tasks] == [b"Hello"] * 5
    fetches = asked.asked - before
    await pair.one.stop()
    assert (await download(pair.bob, path))[1] == b"Hello"
    assert asked.asked - before == fetches <= 3  # the file, and at most how the server is found


async def test_a_thumbnail_of_another_servers_picture(pair: Pair) -> None:
    data = io.BytesIO()
    Image.new("RGB", (800, 400)).save(data, "PNG")
    path = await upload(pair.alice, data.getvalue(), "image/png")
    status, body, headers = await download(pair.bob, path, "thumbnail", width=320, height=240)
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(body)).size == (320, 160)


async def test_what_another_server_does_not_have(pair: Pair) -> None:
    status, body, _ = await download(pair.bob, f"{pair.one.name}/unknown")
    assert status == 404
    assert b"M_NOT_FOUND" in body


async def test_a_file_that_is_not_uploaded_yet(pair: Pair) -> None:
    uri = (await pair.alice.post("/_matrix/media/v1/create"))["content_uri"].removeprefix("mxc://")
    status, body, _ = await download(pair.bob, uri, timeout_ms=10)
    assert (status, b"M_NOT_YET_UPLOADED" in body) == (504, True)
    headers = {"Authorization": f"Bearer {pair.alice.token}"}
    url = f"{pair.alice.url}/_matrix/media/v3/upload/{uri}"
    async with pair.alice.http.put(url, data=b"late", headers=headers) as response:
        assert response.status == 200
    assert (await download(pair.bob, uri))[1] == b"late"


async def test_nobody_fetches_without_showing_who_they_are(pair: Pair) -> None:
    """Lesson S31: strangers fill nobody's disk."""
    path = await upload(pair.alice, b"Hello")
    async with pair.bob.http.get(f"{pair.bob.url}/_matrix/media/v3/download/{path}") as response:
        assert response.status == 404
    assert not files(pair.two)


async def test_what_other_servers_are_given(deployment: Deployment, peer: Peer) -> None:
    """Two parts, JSON and the file, only to those who sign; thumbnails too."""
    (server,) = await deployment.start()
    data = io.BytesIO()
    Image.new("RGB", (800, 400)).save(data, "PNG")
    async with server.user("alice") as alice:
        media_id = (await upload(alice, data.getvalue(), "image/png", filename="a.png")).partition("/")[2]
    base = "/_matrix/federation/v1/media"
    status, headers, parts = await asked(peer, server, f"{base}/download/{media_id}")
    assert (status, [content for _, content in parts]) == (200, [b"{}", data.getvalue()])
    assert parts[0][0]["Content-Type"] == "application/json"
    assert parts[1][0]["Content-Type"] == "image/png"
    assert parts[1][0]["Content-Disposition"] == 'inline; filename="a.png"'
    assert headers["Content-Type"].startswith("multipart/mixed; boundary=")
    assert "Content-Length" in headers
    status, _, parts = await asked(peer, server, f"{base}/thumbnail/{media_id}?width=96&height=96&method=crop")
    assert Image.open(io.BytesIO(parts[1][1])).size == (96, 96)
    for path, expected in (
        (f"{base}/thumbnail/{media_id}?width=0&height=1", 400),
        (f"{base}/thumbnail/{media_id}", 400),
        (f"{base}/download/unknown", 404),
        (f"{base}/download/..%2F..%2Fsigning.key", 404),
    ):
        assert (await asked(peer, server, path))[0] == expected
    async with peer.http.get(f"https://{server.name}{base}/download/{media_id}", ssl=peer.trust) as response:
        assert response.status == 401


async def asked(
    peer: Peer, server: Homeserver, target: str
) -> tuple[int, Mapping[str, str], list[tuple[Mapping[str, str], bytes]]]:
    """What a server answers to the peer: the parts of a multipart body, as another library reads them."""
    headers = {"Authorization": peer.authorization(server.name, "GET", target, None, {})}
    async with peer.http.get(f"https://{server.name}{target}", headers=headers, ssl=peer.trust) as response:
        parts: list[tuple[Mapping[str, str], bytes]] = []
        if response.status == 200:
            reader = aiohttp.MultipartReader.from_response(response)
            while (part := await reader.next()) is not None:
                assert isinstance(part, aiohttp.BodyPartReader)
                parts.append((part.headers, bytes(await part.read())))
        return response.status, response.headers, parts


async def test_a_server_that_sends_too_much(deployment: Deployment, peer: Peer) -> None:
    """Lesson S35: an endless file is given up at the limit, and leaves nothing; nor is it asked for again at once."""
    (server,) = await deployment.start(media=MediaConfig(remote_bytes_max=100_000))
    head = b"--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\nContent-Type: image/png\r\n\r\n"
    answer = web.Response(body=head + b"x" * 5_000_000, headers={"Content-Type": "multipart/mixed; boundary=b"})
    peer.answers[DOWNLOAD] = lambda _: answer
    async with server.user("alice") as alice:
        for _ in range(2):
            status, body, _ = await download(alice, f"{peer.name}/huge")
            assert (status, b"M_TOO_LARGE" in body) == (502, True)
    assert len(peer.asked("media")) == 1
    assert not files(server)
