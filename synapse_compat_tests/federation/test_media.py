"""Media that are uploaded to the one server and downloaded from the other one.

https://spec.matrix.org/v1.19/server-server-api/#content-repository
"""

import asyncio
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from PIL import Image

from homeserver.config.schema import MediaConfig
from synapse_compat_tests.federation.conftest import NewHeliograph, Pair, meeting
from synapse_compat_tests.federation.servers import SynapseSide
from tests.federation.servers.rooms import until_seen
from tests.real_client import Client
from tests.s3_server import Bucket

V1 = "/_matrix/client/v1/media"


@dataclass(frozen=True)
class File:
    """What a server gave."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def picture(self) -> Image.Image:
        """The picture in it."""
        assert self.status == 200, self.body
        return Image.open(io.BytesIO(self.body))


async def upload(client: Client, data: bytes, content_type: str, **query: str) -> str:
    """Uploads something; returns `server/media id`."""
    headers = {"Authorization": f"Bearer {client.token}", "Content-Type": content_type}
    url = f"{client.url}/_matrix/media/v3/upload"
    async with client.http.post(url, data=io.BytesIO(data), headers=headers, params=query) as response:
        assert response.status == 200, await response.text()
        uri: str = (await response.json())["content_uri"]
        return uri.removeprefix("mxc://")


async def fetch(client: Client, path: str, **query: Any) -> File:
    """A GET with the user's token, below the authenticated endpoints unless it begins with a slash."""
    headers = {"Authorization": f"Bearer {client.token}"}
    url = client.url + (path if path.startswith("/") else f"{V1}/{path}")
    async with client.http.get(url, headers=headers, params=query) as response:
        return File(response.status, await response.read(), response.headers)


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    image = Image.effect_mandelbrot((width, height), (-2, -1, 1, 1), 50).convert("RGB")
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


@pytest.mark.parametrize("size_bytes", [1, 5_000_000])
async def test_a_file(pair: Pair, size_bytes: int) -> None:
    data = os.urandom(size_bytes)
    path = await upload(pair.alice, data, "application/x-thing", filename="a thing ü.bin")
    for client in (pair.bob, pair.bob, pair.alice):
        found = await fetch(client, f"download/{path}")
        assert (found.status, found.body) == (200, data)
        assert found.headers["Content-Type"] == "application/x-thing"
        assert found.headers["Content-Disposition"].startswith("attachment")
        assert "a%20thing%20%C3%BC.bin" in found.headers["Content-Disposition"]


async def test_an_empty_file(pair: Pair, resident: str) -> None:
    """A Synapse sends a multipart body without any part then, which is none."""
    path = await upload(pair.alice, b"", "text/plain")
    found = await fetch(pair.bob, f"download/{path}")
    assert (found.status, found.body[:1]) == ((200, b"") if resident == "ours" else (502, b"{"))


async def test_a_file_under_another_name(pair: Pair) -> None:
    path = await upload(pair.alice, b"Hello", "text/plain", filename="one.txt")
    found = await fetch(pair.bob, f"download/{path}/two.txt")
    assert (found.status, found.body) == (200, b"Hello")
    assert found.headers["Content-Disposition"].replace('"', "") == "inline; filename=two.txt"


@pytest.mark.parametrize(
    ("kind", "method", "wanted", "size"),
    [
        ("PNG", "scale", (320, 240), (320, 160)),
        ("JPEG", "scale", (800, 600), (800, 400)),
        ("PNG", "crop", (96, 96), (96, 96)),
    ],
)
async def test_a_thumbnail(pair: Pair, kind: str, method: str, wanted: tuple[int, int], size: tuple[int, int]) -> None:
    path = await upload(pair.alice, picture(1600, 800, kind), f"image/{kind.lower()}")
    query = {"width": str(wanted[0]), "height": str(wanted[1]), "method": method}
    of_bob, of_alice = [await fetch(client, f"thumbnail/{path}", **query) for client in pair.clients[::-1]]
    assert of_bob.picture.size == of_alice.picture.size == size


async def promised(client: Client) -> str:
    """A name for something to come."""
    uri: str = (await client.call("POST", "/_matrix/media/v1/create", {})).body["content_uri"]
    return uri.removeprefix("mxc://")


async def test_what_comes_later(pair: Pair) -> None:
    """Bob asks before Alice has uploaded it, and gets it once she has."""
    path = await promised(pair.alice)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(fetch(pair.bob, f"download/{path}", timeout_ms="20000"))
        headers = {"Authorization": f"Bearer {pair.alice.token}", "Content-Type": "text/plain"}
        url = f"{pair.alice.url}/_matrix/media/v3/upload/{path}"
        async with pair.alice.http.put(url, data=b"late", headers=headers) as response:
            assert response.status == 200, await response.text()
    assert (waiting.result().status, waiting.result().body) == (200, b"late")


async def test_what_does_not_come(pair: Pair, resident: str) -> None:
    """A Synapse does not pass on why there is nothing."""
    early = await fetch(pair.bob, f"download/{await promised(pair.alice)}", timeout_ms="0")
    told = (early.status, b"M_NOT_YET_UPLOADED" in early.body)
    assert told == ((502, False) if resident == "ours" else (504, True))


async def test_what_is_not_there(pair: Pair) -> None:
    for kind in ("download", "thumbnail"):
        found = await fetch(pair.bob, f"{kind}/{pair.home.name}/absent", width="96", height="96")
        assert (found.status, b"M_NOT_FOUND" in found.body) == (404, True)


async def test_the_old_endpoints_give_nothing_new(pair: Pair) -> None:
    """Both servers have frozen them: what is uploaded now is only for those who show who they are."""
    path = await upload(pair.alice, b"Hello", "text/plain")
    async with aiohttp.ClientSession() as http:
        for client in pair.clients:
            for url in (f"{client.url}/_matrix/media/v3/download/{path}", f"{client.url}{V1}/download/{path}"):
                async with http.get(url) as response:
                    assert response.status in (401, 404)
    assert (await fetch(pair.bob, f"download/{path}")).body == b"Hello"


async def test_a_picture_of_a_message_and_of_a_user(pair: Pair) -> None:
    room_id = await pair.share_room()
    path = await upload(pair.alice, picture(64, 64), "image/png", filename="a.png")
    content = {"msgtype": "m.image", "body": "a.png", "url": f"mxc://{path}", "info": {"mimetype": "image/png"}}
    await pair.alice.put(f"/rooms/{quote(room_id)}/send/m.room.message/1", content)
    await pair.alice.put(f"/profile/{pair.alice.user_id}/avatar_url", {"avatar_url": f"mxc://{path}"})
    await until_seen(pair.bob, room_id, "a.png")
    (seen,) = [event for event in await pair.bob.history(room_id) if event["content"].get("body") == "a.png"]
    assert seen["content"]["url"] == f"mxc://{path}"
    assert (await fetch(pair.bob, f"download/{path}")).picture.size == (64, 64)
    profile = await pair.bob.get(f"/profile/{pair.alice.user_id}/avatar_url")
    assert profile == {"avatar_url": f"mxc://{path}"}


async def test_a_synapse_follows_to_the_bucket(
    new_heliograph: NewHeliograph, synapse_side: SynapseSide, bucket: Bucket
) -> None:
    """Where this server sends others to its S3 store."""
    media = MediaConfig(storage="s3", s3=replace(bucket.config, redirect_downloads=True))
    data = os.urandom(100_000)
    async with new_heliograph(media=media) as side, meeting(side, synapse_side) as pair:
        path = await upload(pair.alice, data, "application/x-thing", filename="a.bin")
        found = await fetch(pair.bob, f"download/{path}")
        assert (found.status, found.body) == (200, data)
        assert found.headers["Content-Type"] == "application/x-thing"
        small = await upload(pair.alice, picture(400, 200), "image/png")
        thumbnail = await fetch(pair.bob, f"thumbnail/{small}", width="96", height="96", method="crop")
        assert thumbnail.picture.size == (96, 96)
