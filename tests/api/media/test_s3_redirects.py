"""Clients are sent to the bucket, where that is wanted: https://github.com/matrix-org/matrix-spec-proposals/pull/3860."""

from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from federation.wire.multipart import boundary_of, read_multipart
from tests.api.media.api import OLD, V1, Gallery, picture
from tests.api.server import CONFIG, Client, Site, composed_server, with_changes
from tests.s3_server import Bucket
from tests.web.harness import Reply


@pytest.fixture
async def site(database_url: str, bucket: Bucket) -> AsyncIterator[Site]:
    """A server that sends those who ask to its bucket, before the switch to authenticated media."""
    settings = replace(bucket.config, redirect_downloads=True)
    media = {"storage": "s3", "s3": settings, "require_authentication": False}
    async with composed_server(database_url, with_changes(CONFIG, media=media)) as running:
        yield running


async def followed(reply: Reply) -> tuple[bytes, str | None, str | None]:
    """What is behind a redirect: bytes, type, disposition."""
    assert (reply.status, reply.body) == (307, b"")
    assert reply.headers["cache-control"] == "no-store", "the URL does not hold for long"
    async with aiohttp.ClientSession() as http, http.get(reply.headers["location"]) as response:
        headers = response.headers
        return await response.read(), headers.get("Content-Type"), headers.get("Content-Disposition")


async def test_clients_are_sent_to_the_bucket(gallery: Gallery) -> None:
    path = await gallery.upload(b"<script>", "text/html", name="page ü.html")
    reply = await gallery.download(path)
    body, content_type, disposition = await followed(reply)
    assert (body, content_type) == (b"<script>", "text/html")
    assert disposition == "attachment; filename*=utf-8''page%20%C3%BC.html", "no browser runs it there"
    assert parse_qs(urlsplit(reply.headers["location"]).query)["X-Amz-Expires"] == ["300"]
    _, _, disposition = await followed(await gallery.download(f"{path}/other.html"))
    assert disposition == 'attachment; filename="other.html"'


async def test_thumbnails_too(gallery: Gallery) -> None:
    path = await gallery.upload(picture(), "image/png")
    body, content_type, _ = await followed(await gallery.thumbnail(path, 96, 96))
    assert (content_type, body[:4]) == ("image/png", b"\x89PNG")


async def test_who_does_not_want_to_be_sent_elsewhere(gallery: Gallery) -> None:
    path = await gallery.upload(b"Hello")
    reply = await gallery.download(path, allow_redirect="false")
    assert (reply.status, reply.body) == (200, b"Hello")


async def test_the_old_endpoints_send_only_those_who_allow_it(gallery: Gallery) -> None:
    path = await gallery.upload(b"Hello")
    for query in ({}, {"allow_redirect": "false"}):
        reply = await gallery.get(f"{OLD}/download/{path}", **query)
        assert (reply.status, reply.body) == (200, b"Hello")
    assert (await followed(await gallery.get(f"{OLD}/download/{path}", allow_redirect="true")))[0] == b"Hello"


async def test_what_a_client_has_is_not_sent_again(gallery: Gallery) -> None:
    path = await gallery.upload(b"Hello")
    etag = (await gallery.download(path, allow_redirect="false")).headers["etag"]
    assert (await gallery.download(path, headers={"if-none-match": etag})).status == 304


async def test_nobody_is_sent_to_what_they_may_not_have(site: Site, gallery: Gallery, bob: Client) -> None:
    reply = await site.request("GET", f"{V1}/download/{await gallery.upload(b'x')}")
    assert reply.status == 401
    assert (await Gallery(bob).download("test/unknown")).status == 404


async def test_other_servers_are_sent_to_the_bucket(site: Site, gallery: Gallery) -> None:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid."""
    path = await gallery.upload(b"Hello", "text/plain", name="a.txt")
    media_id = path.partition("/")[2]
    reply = await site.ask_as("far", "GET", f"/_matrix/federation/v1/media/download/{media_id}")
    assert reply.status == 200

    async def chunks() -> AsyncIterator[bytes]:
        yield reply.body

    part = await read_multipart(chunks(), boundary_of(reply.headers["content-type"]))
    assert b"".join([data async for data in part.chunks]) == b""
    async with aiohttp.ClientSession() as http, http.get(part.headers["location"]) as response:
        assert await response.read() == b"Hello"
        assert response.headers["Content-Type"] == "text/plain"
        assert response.headers["Content-Disposition"] == 'inline; filename="a.txt"'
