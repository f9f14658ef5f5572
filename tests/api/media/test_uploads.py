"""Uploads and downloads: https://spec.matrix.org/v1.19/client-server-api/#content-repository."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from homeserver.config.schema import ByteRateConfig
from homeserver.core.content_disposition import FILE_NAME_CHARACTERS_MAX
from tests.api.media.api import OLD, V1, Gallery
from tests.api.server import CONFIG, Client, Site, composed_server, refused, with_changes
from tests.fast_clock import FastClock
from tests.waiting import wait_until


async def test_what_is_uploaded_can_be_downloaded(gallery: Gallery, bob: Client) -> None:
    path = await gallery.upload(b"Hello", "text/plain; charset=utf-8", name="greeting.txt")
    reply = await Gallery(bob).download(path)
    assert (reply.status, reply.body) == (200, b"Hello")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["content-disposition"] == 'inline; filename="greeting.txt"'
    assert reply.headers["content-length"] == "5"


async def test_everybody_knows_how_large_files_may_be(gallery: Gallery) -> None:
    for path in (f"{V1}/config", f"{OLD}/config", "/_matrix/media/r0/config"):
        assert (await gallery.get(path)).json == {"m.upload.size": 50 * 1024 * 1024}


async def test_the_name_of_a_file_can_be_chosen_when_it_is_downloaded(gallery: Gallery) -> None:
    path = await gallery.upload(b"Hello", "text/plain", name="one.txt")
    reply = await gallery.download(f"{path}/two ü.txt")
    assert reply.headers["content-disposition"] == "inline; filename*=utf-8''two%20%C3%BC.txt"


async def test_without_a_name_and_a_type(gallery: Gallery) -> None:
    path = await gallery.upload(b"\0\1", None)
    reply = await gallery.download(path)
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"] == "attachment"


@pytest.mark.parametrize("content_type", ["nonsense", "text/html\x01", "a/b; " + "c" * 300, "text/", "/plain"])
async def test_a_type_that_is_none_is_the_unknown_type(gallery: Gallery, content_type: str) -> None:
    path = await gallery.upload(b"x", content_type)
    assert (await gallery.download(path)).headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/html",
        "TEXT/HTML",
        "image/svg+xml",
        "application/xhtml+xml",
        "text/xml",
        "application/pdf",
        "image/png2",
        "multipart/form-data; boundary=x",
    ],
)
async def test_what_a_browser_could_run_is_only_saved(gallery: Gallery, content_type: str) -> None:
    """Lesson S33: the type alone decides, in whatever case it is written."""
    path = await gallery.upload(b"<script>alert(1)</script>", content_type)
    reply = await gallery.download(path)
    assert reply.headers["content-disposition"] == "attachment"
    assert reply.headers["content-type"] == content_type


@pytest.mark.parametrize("content_type", ["image/png", "IMAGE/PNG", "text/plain;charset=x", "audio/ogg", "video/mp4"])
async def test_what_no_browser_runs_is_shown(gallery: Gallery, content_type: str) -> None:
    path = await gallery.upload(b"<script>alert(1)</script>", content_type)
    assert (await gallery.download(path)).headers["content-disposition"] == "inline"


async def test_every_answer_is_locked_in(gallery: Gallery) -> None:
    """Lesson S33: a sandbox, no sniffing, whatever is asked for and however."""
    path = await gallery.upload(b"Hello" * 100, "image/png")
    known = (await gallery.download(path)).headers["etag"]
    for headers in ({}, {"range": "bytes=0-1"}, {"range": "bytes=9999-"}, {"if-none-match": known}):
        reply = await gallery.download(path, headers=headers)
        assert reply.headers["content-security-policy"].startswith("sandbox; default-src 'none'; script-src 'none';")
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cross-origin-resource-policy"] == "cross-origin"


@pytest.mark.parametrize(
    ("wanted", "status", "body", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
        ("BYTES = 5-5", 206, b"5", "bytes 5-5/10"),
        ("bytes=5-4", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=0-1", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
    ],
)
async def test_parts_of_a_file(
    gallery: Gallery, wanted: str, status: int, body: bytes, content_range: str | None
) -> None:
    path = await gallery.upload(b"0123456789")
    reply = await gallery.download(path, headers={"range": wanted})
    assert (reply.status, reply.body, reply.headers.get("content-range")) == (status, body, content_range)
    assert reply.headers["content-length"] == str(len(body))


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=10-20", "bytes=-0"])
async def test_a_part_that_there_is_not(gallery: Gallery, wanted: str) -> None:
    path = await gallery.upload(b"0123456789")
    reply = await gallery.download(path, headers={"range": wanted})
    assert (reply.status, reply.headers["content-range"]) == (416, "bytes */10")


async def test_what_a_client_has_is_not_sent_again(gallery: Gallery) -> None:
    path = await gallery.upload(b"0123456789")
    etag = (await gallery.download(path)).headers["etag"]
    reply = await gallery.download(path, headers={"if-none-match": f'"other", W/{etag}'})
    assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", etag)
    assert (await gallery.download(path, headers={"if-none-match": '"other"'})).status == 200
    part = {"range": "bytes=0-0", "if-range": etag}
    assert (await gallery.download(path, headers=part)).status == 206
    assert (await gallery.download(path, headers=part | {"if-range": '"other"'})).status == 200


async def test_head_tells_all_but_the_bytes(gallery: Gallery) -> None:
    path = await gallery.upload(b"0123456789")
    reply = await gallery.client.call("HEAD", f"{V1}/download/{path}")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "10")


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 3 * 1024 * 1024 + 1])
async def test_files_of_any_size(gallery: Gallery, size: int) -> None:
    data = bytes(index % 251 for index in range(min(size, 1000))) * (size // 1000 + 1)
    path = await gallery.upload(data[:size], "application/octet-stream")
    assert (await gallery.download(path)).body == data[:size]


async def test_the_same_bytes_are_kept_once(gallery: Gallery) -> None:
    first, second = await gallery.upload(b"same", "text/plain"), await gallery.upload(b"same", "image/png")
    assert first != second
    assert len(gallery.files) == 1
    assert (await gallery.download(second)).headers["content-type"] == "image/png"


async def test_who_may_upload_and_download(site: Site, gallery: Gallery) -> None:
    path = await gallery.upload(b"x")
    refused(await site.request("POST", f"{OLD}/upload", body=b"x"), 401, "M_MISSING_TOKEN")
    refused(await site.request("GET", f"{V1}/download/{path}"), 401, "M_MISSING_TOKEN")
    refused(await site.request("GET", f"{V1}/config"), 401, "M_MISSING_TOKEN")


@pytest.mark.parametrize(
    "path",
    [
        "test/unknown",
        "test/..%2F..%2Fetc%2Fpasswd",
        "test/a.b",
        "test/%2e%2e",
        "..%2f/abc",
        "test:x/abc",
        "%00/abc",
        "test/a b",
        "test/" + "a" * 300,
    ],
)
async def test_a_path_leads_nowhere_else(gallery: Gallery, path: str) -> None:
    """Lesson S31: names are checked, and bytes lie where their hash says."""
    for kind in ("download", "thumbnail"):
        reply = await gallery.client.server.request(
            "GET", f"{V1}/{kind}/{path}", token=gallery.client.token, query={"width": "1", "height": "1"}
        )
        assert reply.status in (400, 404), reply.body
        assert reply.json["errcode"] in ("M_NOT_FOUND", "M_INVALID_PARAM", "M_UNRECOGNIZED")


async def test_names_of_files_are_bounded(gallery: Gallery) -> None:
    refused(await gallery.try_upload(b"x", name="n" * (FILE_NAME_CHARACTERS_MAX + 1)), 400, "M_INVALID_PARAM")
    path = await gallery.upload(b"x", name='a"b\\c\r\nd; é.txt')
    disposition = (await gallery.download(path)).headers["content-disposition"]
    assert disposition == "inline; filename*=utf-8''a%22b%5Ccd%3B%20%C3%A9.txt"


async def test_a_file_that_is_too_large(database_url: str) -> None:
    async with composed_server(database_url, with_changes(CONFIG, media={"upload_bytes_max": 10})) as site:
        gallery = Gallery(await site.register("alice"))
        await gallery.upload(b"x" * 10)
        announced = {"content-length": "11"}
        for headers in ({}, announced):
            reply = await site.request(
                "POST", f"{OLD}/upload", token=gallery.client.token, body=b"x" * 11, headers=headers
            )
            refused(reply, 413, "M_TOO_LARGE")
        assert len(gallery.files) == 1


@pytest.mark.parametrize("quota", [{"user_bytes_max": 10}, {"user_files_max": 1}])
async def test_the_quota_of_a_user(database_url: str, quota: dict[str, int]) -> None:
    async with composed_server(database_url, with_changes(CONFIG, media=quota)) as site:
        alice, bob = Gallery(await site.register("alice")), Gallery(await site.register("bob"))
        await alice.upload(b"x" * 10)
        refused(await alice.try_upload(b"y"), 403, "M_FORBIDDEN")
        refused(await alice.client.call("POST", "/_matrix/media/v1/create", {}), 403, "M_FORBIDDEN")
        await bob.upload(b"x" * 10)


async def test_a_file_that_would_go_beyond_the_quota(database_url: str) -> None:
    async with composed_server(database_url, with_changes(CONFIG, media={"user_bytes_max": 10})) as site:
        alice = Gallery(await site.register("alice"))
        refused(await alice.try_upload(b"x" * 11), 403, "M_FORBIDDEN")
        await alice.upload(b"x" * 10)


async def test_the_rate_of_bytes(database_url: str) -> None:
    """Lesson S31: nobody fills the disk at once."""
    rate = ByteRateConfig(per_second_bytes=1000, burst_bytes=1000)
    async with composed_server(database_url, with_changes(CONFIG, media={"uploads": rate})) as site:
        alice, bob = Gallery(await site.register("alice")), Gallery(await site.register("bob"))
        await alice.upload(b"x" * 5000)
        error = refused(await alice.try_upload(b"y"), 429, "M_LIMIT_EXCEEDED")
        assert 3000 < error["retry_after_ms"] <= 4001
        await bob.upload(b"z")
        site.clock.advance(5)
        await alice.upload(b"y")


async def test_an_interrupted_upload_leaves_nothing(gallery: Gallery) -> None:
    """The client goes away half-way."""
    received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    site = gallery.client.server
    path = f"{OLD}/upload"
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "client": ("192.0.2.1", 1),
        "scheme": "http",
        "extensions": {},
        "headers": [(b"host", b"test"), (b"authorization", f"Bearer {gallery.client.token}".encode())],
    }
    async with asyncio.TaskGroup() as group:
        group.create_task(site.app(scope, received.get, send))  # type: ignore[arg-type]
        received.put_nowait({"type": "http.request", "body": b"x" * 1_000_000, "more_body": True})
        await wait_until(lambda: gallery.incoming_bytes > 0)
        received.put_nowait({"type": "http.disconnect"})
    assert gallery.files == []
    assert sent == []


async def test_a_name_first_and_the_file_later(gallery: Gallery, bob: Client) -> None:
    answer = await gallery.client.post("/_matrix/media/v1/create")
    path = answer["content_uri"].removeprefix("mxc://")
    lifetime_ms = answer["unused_expires_at"] - gallery.client.server.clock.now_ms()
    assert 86_300_000 < lifetime_ms <= 86_400_000
    refused(await gallery.download(path, timeout_ms=0), 504, "M_NOT_YET_UPLOADED")
    refused(await Gallery(bob).put(path, b"mine"), 403, "M_FORBIDDEN")
    reply = await gallery.put(path, b"late", "image/png")
    assert (reply.status, reply.json) == (200, {})
    refused(await gallery.put(path, b"again"), 409, "M_CANNOT_OVERWRITE_MEDIA")
    reply = await Gallery(bob).download(path)
    assert (reply.body, reply.headers["content-type"]) == (b"late", "image/png")


async def test_who_asks_before_the_upload_waits_for_it(gallery: Gallery) -> None:
    path = await gallery.create()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(gallery.download(path))
        await asyncio.sleep(0)
        assert (await gallery.put(path, b"late")).status == 200
    assert waiting.result().body == b"late"


async def test_a_name_expires(gallery: Gallery) -> None:
    path = await gallery.create()
    gallery.client.server.clock.advance(86_401)
    gallery = Gallery(await gallery.client.server.login("alice"))
    refused(await gallery.put(path, b"x"), 404, "M_NOT_FOUND")
    refused(await gallery.download(path), 404, "M_NOT_FOUND")


async def test_names_are_given_out_here_and_only_so_many(gallery: Gallery) -> None:
    refused(await gallery.put("test/unknown", b"x"), 404, "M_NOT_FOUND")
    refused(await gallery.put("elsewhere/unknown", b"x"), 404, "M_NOT_FOUND")
    paths = [await gallery.create() for _ in range(5)]
    refused(await gallery.client.call("POST", "/_matrix/media/v1/create", {}), 429, "M_LIMIT_EXCEEDED")
    assert (await gallery.put(paths[0], b"x")).status == 200
    await gallery.create()


@pytest.mark.parametrize("value", ["x", "-1", "1.5"])
async def test_a_wrong_time_to_wait(gallery: Gallery, value: str) -> None:
    path = await gallery.create()
    refused(await gallery.download(path, timeout_ms=value), 400, "M_INVALID_PARAM")


async def test_what_comes_after_the_switch_is_frozen(site: Site, gallery: Gallery) -> None:
    path = await gallery.upload(b"x")
    for version in ("v3", "r0", "v1"):
        refused(await site.request("GET", f"/_matrix/media/{version}/download/{path}"), 404, "M_NOT_FOUND")
    assert (await gallery.download(path)).status == 200


@pytest.fixture
async def open_site(database_url: str) -> AsyncIterator[Site]:
    """A server before the switch."""
    config = with_changes(CONFIG, media={"require_authentication": False})
    async with composed_server(database_url, config, clock=FastClock(speed=1)) as running:
        yield running


async def test_what_came_before_the_switch_is_for_anybody(open_site: Site) -> None:
    path = await Gallery(await open_site.register("alice")).upload(b"x", "text/plain", name="x")
    for version in ("v3", "r0", "v1"):
        reply = await open_site.request("GET", f"/_matrix/media/{version}/download/{path}/y.txt")
        assert (reply.body, reply.headers["content-disposition"]) == (b"x", 'inline; filename="y.txt"')
        assert reply.headers["content-security-policy"].startswith("sandbox;")
    refused(
        await open_site.request("GET", f"{OLD}/download/{path}", query={"allow_remote": "perhaps"}),
        400,
        "M_INVALID_PARAM",
    )
