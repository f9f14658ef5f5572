"""Media between people on two servers: plain, as thumbnails, and encrypted before they are uploaded.

https://spec.matrix.org/v1.19/client-server-api/#content-repository
https://spec.matrix.org/v1.19/client-server-api/#sending-encrypted-attachments
"""

import base64
import io

import pytest
from PIL import Image

from tests.clients.encryption.stage import Stage

pytestmark = pytest.mark.seconds_max(180)


def picture(width: int, height: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), (10, 20, 30)).save(data, "PNG")
    return data.getvalue()


async def test_a_picture_and_its_thumbnail(stage: Stage) -> None:
    data = picture(800, 400)
    alice, bob = await stage.couple()
    uri = await alice.call("upload", base64.b64encode(data).decode(), "image/png")
    for person in (alice, bob):
        got = await person.call("download", uri)
        assert (got["status"], got["type"]) == (200, "image/png")
        assert base64.b64decode(got["data"]) == data
        small = await person.call("download", uri, 96, 96)
        assert small["status"] == 200
        # It may be larger than what was asked for.
        width, height = Image.open(io.BytesIO(base64.b64decode(small["data"]))).size
        assert 96 <= width < 800
        assert height == width / 2


async def test_an_encrypted_attachment(stage: Stage) -> None:
    """The server keeps what it cannot read."""
    data = picture(80, 40)
    alice, bob = await stage.couple()
    room_id = await stage.room_of(alice, bob)
    await alice.call("sendAttachment", room_id, base64.b64encode(data).decode(), "image/png")
    (message,) = await bob.until_read(room_id, "A picture")
    file = message["content"]["file"]
    stored = await bob.call("download", file["url"])
    assert (stored["status"], stored["type"]) == (200, "application/octet-stream")
    assert base64.b64decode(stored["data"]) != data
    assert base64.b64decode(await bob.call("openAttachment", file)) == data
