"""Thumbnails: https://spec.matrix.org/v1.19/client-server-api/#thumbnails."""

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
from PIL import Image

from tests.api.media.api import OLD, V1, Gallery, animation, picture, seen
from tests.api.server import CONFIG, composed_server, refused, with_changes


@pytest.mark.parametrize(
    ("wanted", "size"),
    [
        ({"width": 300, "height": 200}, (320, 160)),
        ({"width": 300, "height": 200, "method": "scale"}, (320, 160)),
        ({"width": 640, "height": 480}, (640, 320)),
        ({"width": 10, "height": 300}, (640, 320)),
        ({"width": 32, "height": 32, "method": "crop"}, (32, 32)),
        ({"width": 50, "height": 50, "method": "crop"}, (96, 96)),
        ({"width": 96, "height": 48, "method": "crop"}, (96, 48)),
        ({"width": 800, "height": 800, "method": "crop"}, (400, 400)),
        ({"width": 9999, "height": 9999, "method": "crop"}, (400, 400)),
    ],
)
async def test_sizes(gallery: Gallery, wanted: Mapping[str, Any], size: tuple[int, int]) -> None:
    """At least as large as asked for, in the shape asked for, and never larger than the picture."""
    path = await gallery.upload(picture(800, 400), "image/png")
    reply = await gallery.get(f"{V1}/thumbnail/{path}", **wanted)
    assert seen(reply).size == size
    assert reply.headers["content-type"] == "image/png"
    assert reply.headers["content-disposition"] == 'inline; filename="thumbnail.png"'
    assert reply.headers["content-security-policy"].startswith("sandbox;")


async def test_crop_takes_the_middle(gallery: Gallery) -> None:
    path = await gallery.upload(picture(800, 400), "image/png")
    shown = seen(await gallery.thumbnail(path, 96, 96, method="crop")).convert("RGB")
    assert (shown.getpixel((5, 50)), shown.getpixel((90, 50))) == ((200, 30, 30), (0, 0, 0))


async def test_a_small_picture_is_its_own_thumbnail(gallery: Gallery) -> None:
    data = picture(20, 10)
    path = await gallery.upload(data, "image/png")
    reply = await gallery.thumbnail(path, 800, 600)
    assert (reply.body, reply.headers["content-type"]) == (data, "image/png")
    assert len(gallery.files) == 1


@pytest.mark.parametrize(
    ("kind", "mode", "content_type"),
    [
        ("JPEG", "RGB", "image/jpeg"),
        ("JPEG", "CMYK", "image/jpeg"),
        ("PNG", "RGBA", "image/png"),
        ("PNG", "LA", "image/png"),
        ("PNG", "P", "image/png"),
        ("PNG", "1", "image/png"),
        ("PNG", "I;16", "image/png"),
        ("GIF", "P", "image/png"),
        ("WEBP", "RGB", "image/jpeg"),
        ("WEBP", "RGBA", "image/png"),
        ("AVIF", "RGB", "image/jpeg"),
    ],
)
async def test_formats(gallery: Gallery, kind: str, mode: str, content_type: str) -> None:
    colour = {1: 1, 2: (200, 100), 3: (200, 30, 30), 4: (200, 30, 30, 100)}[len(Image.new(mode, (1, 1)).getbands())]
    path = await gallery.upload(picture(kind=kind, mode=mode, colour=colour), "application/octet-stream")
    reply = await gallery.thumbnail(path, 320, 240)
    assert (reply.headers["content-type"], seen(reply).size) == (content_type, (320, 160))


async def test_a_picture_is_shown_the_right_way_up(gallery: Gallery) -> None:
    """Its EXIF orientation says how; nothing else of what it says of itself goes along."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "Where I live"
    path = await gallery.upload(picture(800, 400, "JPEG", exif=exif), "image/jpeg")
    reply = await gallery.thumbnail(path, 320, 240)
    shown = seen(reply)
    assert shown.size == (120, 240)
    assert shown.getpixel((60, 20))[0] > 150 > 60 > shown.getpixel((60, 220))[0]  # type: ignore[index, operator]
    assert b"Where I live" not in reply.body
    assert not shown.getexif()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
async def test_animations(gallery: Gallery, kind: str) -> None:
    path = await gallery.upload(animation(kind), "image/gif")
    moving = await gallery.thumbnail(path, 96, 96, animated="true")
    assert (seen(moving).n_frames, seen(moving).size) == (3, (96, 48))  # type: ignore[attr-defined]
    assert moving.headers["content-type"] == "image/webp"
    for query in ({}, {"animated": "false"}):
        still = await gallery.thumbnail(path, 96, 96, **query)
        assert (still.headers["content-type"], getattr(seen(still), "n_frames", 1)) in (
            ("image/png", 1),
            ("image/jpeg", 1),
        )
    small = await gallery.thumbnail(path, 800, 600, animated="false")
    assert getattr(seen(small), "n_frames", 1) == 1


async def test_animated_of_what_does_not_move(gallery: Gallery) -> None:
    path = await gallery.upload(picture(), "image/png")
    assert (await gallery.thumbnail(path, 96, 96, animated="true")).headers["content-type"] == "image/png"


async def test_a_thumbnail_is_made_once(gallery: Gallery) -> None:
    path = await gallery.upload(picture(), "image/png")
    first = await gallery.thumbnail(path, 90, 90)
    assert len(gallery.files) == 2
    again = await gallery.thumbnail(path, 95, 95)
    assert (again.headers["etag"], len(gallery.files)) == (first.headers["etag"], 2)
    part = await gallery.get(
        f"{V1}/thumbnail/{path}", width=90, height=90, headers={"if-none-match": first.headers["etag"]}
    )
    assert part.status == 304


@pytest.mark.parametrize(
    "query",
    [
        {"width": "10"},
        {"height": "10"},
        {"width": "0", "height": "10"},
        {"width": "-5", "height": "10"},
        {"width": "ten", "height": "10"},
        {"width": "1.5", "height": "10"},
        {"width": "10", "height": "10", "method": "stretch"},
        {"width": "10", "height": "10", "animated": "maybe"},
    ],
)
async def test_wrong_wishes(gallery: Gallery, query: Mapping[str, str]) -> None:
    path = await gallery.upload(picture(), "image/png")
    reply = await gallery.get(f"{V1}/thumbnail/{path}", **query)
    assert (reply.status, reply.json["errcode"]) in ((400, "M_INVALID_PARAM"), (400, "M_MISSING_PARAM"))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is huge."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


async def test_a_picture_that_is_too_large(gallery: Gallery) -> None:
    """Lesson S32: its head tells, before anything is decoded."""
    for data in (bomb(60_000, 60_000), bomb(2**31 - 1, 2**31 - 1)):
        path = await gallery.upload(data, "image/png")
        reply = await gallery.thumbnail(path, 96, 96)
        assert (reply.status, reply.json["errcode"]) in ((413, "M_TOO_LARGE"), (400, "M_UNKNOWN"))
    path = await gallery.upload(bomb(60_000, 60_000), "image/png")
    refused(await gallery.thumbnail(path, 96, 96), 413, "M_TOO_LARGE")


async def test_the_limit_of_pixels_is_a_setting(database_url: str) -> None:
    async with composed_server(database_url, with_changes(CONFIG, media={"picture_pixels_max": 100})) as site:
        gallery = Gallery(await site.register("alice"))
        path = await gallery.upload(picture(11, 10), "image/png")
        refused(await gallery.thumbnail(path, 5, 5), 413, "M_TOO_LARGE")
        path = await gallery.upload(picture(10, 10), "image/png")
        assert seen(await gallery.thumbnail(path, 5, 5)).size == (10, 10)


def svg() -> bytes:
    return b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'


def of_kind(kind: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (900, 900)).save(data, kind)
    return data.getvalue()


BROKEN = {
    "nothing": b"",
    "text": b"Hello",
    "svg": svg(),
    "html": b"<html><body>",
    "truncated png": picture(900, 900, colour=(1, 2, 3))[:-400],
    "truncated jpeg": picture(900, 900, "JPEG")[:700],
    "head of a gif alone": b"GIF89a",
    "head of a webp alone": b"RIFF\x00\x00\x00\x00WEBPVP8L" + b"\xff" * 50,
    "head of an avif alone": b"\0\0\0\x1cftypavif" + b"\0" * 40,
    "tiff": of_kind("TIFF"),
    "bmp": of_kind("BMP"),
    "pdf": b"%PDF-1.4\n%",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "png in name only": b"\x89PNG\r\n\x1a\n<svg onload=alert(1)>",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_no_picture(gallery: Gallery, name: str) -> None:
    """Lesson S32: only known formats reach a decoder, by their bytes and not by what is said of them; broken ones are
    refused, and the next picture is served."""
    path = await gallery.upload(BROKEN[name], "image/png")
    refused(await gallery.thumbnail(path, 96, 96), 400, "M_UNKNOWN")
    good = await gallery.upload(picture(), "image/png")
    assert seen(await gallery.thumbnail(good, 96, 96)).size == (96, 48)


async def test_a_polyglot_is_a_picture_and_nothing_else(gallery: Gallery) -> None:
    """A GIF that is a script as well: what is answered is a picture, under a picture's type (S33)."""
    data = picture(900, 900, "GIF") + b"/*<script>alert(1)</script>*/"
    path = await gallery.upload(data, "text/html")
    reply = await gallery.thumbnail(path, 96, 96)
    assert reply.headers["content-type"] == "image/png"
    assert b"script" not in reply.body
    assert (await gallery.download(path)).headers["content-disposition"] == "attachment"


async def test_thumbnails_of_what_is_frozen_and_what_is_not_there(gallery: Gallery) -> None:
    path = await gallery.upload(picture(), "image/png")
    query = {"width": "96", "height": "96"}
    refused(await gallery.client.server.request("GET", f"{OLD}/thumbnail/{path}", query=query), 404, "M_NOT_FOUND")
    refused(await gallery.get(f"{V1}/thumbnail/test/unknown", **query), 404, "M_NOT_FOUND")
    refused(
        await gallery.get(f"{V1}/thumbnail/{await gallery.create()}", timeout_ms=0, **query), 504, "M_NOT_YET_UPLOADED"
    )
