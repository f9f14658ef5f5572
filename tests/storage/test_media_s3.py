"""Files of media in a bucket: whole or not at all, and what happens when the store fails."""

import hashlib
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from homeserver.config.schema import S3Config
from storage.media import s3
from storage.media.base import NoSuchBytes, StoreUnavailable
from storage.media.s3 import S3Bytes
from tests.fast_clock import FastClock
from tests.s3_server import SECRET, Bucket

MIB = 1024 * 1024


@asynccontextmanager
async def opened_store(config: S3Config, folder: Path, clock: FastClock | None = None) -> AsyncIterator[S3Bytes]:
    async with S3Bytes(config, spool_folder=folder / "incoming", clock=clock or FastClock(speed=100)) as store:
        yield store


@pytest.fixture
async def store(bucket: Bucket, tmp_path: Path) -> AsyncIterator[S3Bytes]:
    """An empty store."""
    async with opened_store(bucket.config, tmp_path) as running:
        yield running


async def written(store: S3Bytes, *parts: bytes) -> bytes:
    async with store.incoming() as incoming:
        for part in parts:
            await incoming.write(part)
        sha256, _ = await incoming.finish()
        await incoming.keep()
    return sha256


async def read(store: S3Bytes, sha256: bytes, *, start: int = 0, length: int | None = None) -> bytes:
    opened = await store.open(sha256, start=start, length=length)
    return b"".join([data async for data in opened])


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_file_lies_by_its_hash(store: S3Bytes, bucket: Bucket, tmp_path: Path) -> None:
    parts = [b"a" * 100_000, b"b" * 700_000, b"c"]
    sha256 = await written(store, *parts)
    assert sha256 == hashlib.sha256(b"".join(parts)).digest()
    name = sha256.hex()
    assert bucket.keys == [f"some/where/content/{name[:2]}/{name}"]
    assert files(tmp_path) == []
    assert await read(store, sha256) == b"".join(parts)
    assert await read(store, sha256, start=799_999, length=2) == b"bc"
    assert await read(store, sha256, start=800_000) == b"c"
    async with store.as_file(sha256) as path:
        assert path.read_bytes() == b"".join(parts)
    assert files(tmp_path) == []


async def test_an_empty_file(store: S3Bytes) -> None:
    sha256 = await written(store)
    assert await read(store, sha256) == b""
    assert await read(store, sha256, length=32) == b""
    async with store.as_file(sha256) as path:
        assert path.read_bytes() == b""


async def test_what_is_not_there(store: S3Bytes) -> None:
    with pytest.raises(NoSuchBytes):
        await store.open(bytes(32))
    with pytest.raises(NoSuchBytes):
        async with store.as_file(bytes(32)):
            pass
    await store.remove(bytes(32))
    sha256 = await written(store, b"x")
    await store.remove(sha256)
    with pytest.raises(NoSuchBytes):
        await store.open(sha256)


async def test_a_large_file_goes_in_parts(store: S3Bytes, bucket: Bucket) -> None:
    data = os.urandom(2 * s3.PART_BYTES + 1)
    sha256 = await written(store, data)
    assert await read(store, sha256) == data
    assert await read(store, sha256, start=s3.PART_BYTES - 1, length=2) == data[s3.PART_BYTES - 1 :][:2]
    (found,) = bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]
    assert found["ETag"].endswith('-3"'), "three parts"
    assert bucket.unfinished == []


async def test_a_large_file_is_not_sent_twice(store: S3Bytes, bucket: Bucket) -> None:
    data = os.urandom(s3.PART_BYTES + 1)
    await written(store, data)
    (before,) = bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]
    await written(store, data)
    assert bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"] == [before]


async def test_nothing_is_left_of_a_file_that_was_not_kept(store: S3Bytes, bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        async with store.incoming() as incoming:
            await incoming.write(b"x" * 1_000_000)
            assert len(files(tmp_path)) == 1
            raise KeyError
    assert (files(tmp_path), bucket.keys) == ([], [])


async def test_an_upload_that_fails_half_way_leaves_no_parts(
    store: S3Bytes, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, sent = store.call, []

    async def fail_at_the_second(operation: str, **parameters: Any) -> Any:
        if operation == "upload_part" and parameters["PartNumber"] == 2:
            sent.extend(bucket.unfinished)
            raise StoreUnavailable
        return await call(operation, **parameters)

    monkeypatch.setattr(S3Bytes, "call", staticmethod(fail_at_the_second))
    with pytest.raises(StoreUnavailable):
        await written(store, os.urandom(2 * s3.PART_BYTES))
    assert len(sent) == 1
    assert (bucket.keys, bucket.unfinished) == ([], [])


async def test_parts_that_a_killed_server_has_left_are_swept(store: S3Bytes, bucket: Bucket) -> None:
    """Only ours. (The server of the tests says of all that they are years old.)"""
    for key in ("some/where/content/ab/abcd", "of somebody else"):
        upload = bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
        bucket.client.upload_part(Bucket=bucket.name, Key=key, UploadId=upload, PartNumber=1, Body=b"x")
    assert await store.sweep_incoming(older_than_seconds=3600) == 1
    assert bucket.unfinished == ["of somebody else"]
    assert await store.sweep_incoming(older_than_seconds=3600) == 0


async def test_a_url_for_clients(bucket: Bucket, tmp_path: Path, store: S3Bytes) -> None:
    sha256 = await written(store, b"Hello")
    assert await store.url(sha256, content_type="a/b", content_disposition="inline") is None
    config = replace(bucket.config, redirect_downloads=True)
    async with opened_store(config, tmp_path) as sending, aiohttp.ClientSession() as http:
        url = await sending.url(sha256, content_type="text/x-thing", content_disposition='inline; filename="ü"')
        assert url is not None
        assert SECRET not in url
        async with http.get(url) as response:
            assert (response.status, await response.read()) == (200, b"Hello")
            assert response.headers["Content-Type"] == "text/x-thing"
            assert "X-Amz-Expires=300" in url
    config = replace(config, public_endpoint_url="https://media.example.org")
    async with opened_store(config, tmp_path) as sending:
        url = await sending.url(sha256, content_type="a/b", content_disposition="inline")
        assert url is not None
        assert url.startswith(f"https://media.example.org/{bucket.name}/some/where/content/")
        assert await read(sending, sha256) == b"Hello"


class Failing:
    """A store that fails as it is told: each answer is one of `answers`, the last for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[web.Request] = []
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        await request.read()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


@asynccontextmanager
async def failing(config: S3Config, folder: Path, *answers: Any) -> AsyncIterator[tuple[S3Bytes, Failing]]:
    there = Failing(*answers)
    app = web.Application(client_max_size=64 * MIB)
    app.router.add_route("*", "/{any:.*}", there.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        there.port = runner.addresses[0][1]
        async with opened_store(replace(config, endpoint_url=f"http://127.0.0.1:{there.port}"), folder) as store:
            yield store, there
    finally:
        await runner.cleanup()


def error(status: int, code: str) -> Any:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=f"<Error><Code>{code}</Code></Error>", content_type="application/xml")

    return answer


async def good(_: web.Request) -> web.StreamResponse:
    return web.Response(headers={"ETag": '"x"'})


@pytest.fixture
def config(bucket: Bucket) -> S3Config:
    """The settings, but for where the store is."""
    return bucket.config


async def test_what_fails_by_chance_is_tried_again(config: S3Config, tmp_path: Path) -> None:
    async with failing(config, tmp_path, error(503, "SlowDown"), good) as (store, there):
        await written(store, b"x")
    assert [request.method for request in there.asked] == ["PUT"] * 2
    signed = {request.headers["x-amz-content-sha256"] for request in there.asked}
    assert signed == {hashlib.sha256(b"x").hexdigest()}, "the store checks what it gets"


async def test_a_store_that_refuses(config: S3Config, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said what is wrong, but no key."""
    caplog.set_level(logging.DEBUG)
    async with failing(config, tmp_path, error(403, "InvalidAccessKeyId")) as (store, there):
        with pytest.raises(StoreUnavailable, match="S3 refuses put_object: InvalidAccessKeyId"):
            await written(store, b"x")
    assert len(there.asked) == 1
    assert SECRET not in caplog.text
    assert "AWS4-HMAC" not in caplog.text
    assert SECRET not in repr(config)


async def test_a_store_that_does_not_answer(config: S3Config, tmp_path: Path) -> None:
    async def drop(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with failing(config, tmp_path, drop) as (store, there):
        with pytest.raises(StoreUnavailable, match="S3 does not answer"):
            await store.open(bytes(32))
    assert len(there.asked) >= s3.ATTEMPTS_MAX


def breaking_off(data: bytes, *, after_bytes: int) -> Any:
    """Gives what is asked for, and breaks off."""

    async def answer(request: web.Request) -> web.StreamResponse:
        start = int(request.headers["Range"].removeprefix("bytes=").split("-")[0]) if "Range" in request.headers else 0
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(data) - start
        await response.prepare(request)
        await response.write(data[start : start + after_bytes])
        if start + after_bytes < len(data):
            assert request.transport is not None
            request.transport.close()
        return response

    return answer


async def test_a_file_that_breaks_off_is_read_on(config: S3Config, tmp_path: Path) -> None:
    data = os.urandom(3 * MIB)
    async with failing(config, tmp_path, breaking_off(data, after_bytes=MIB)) as (store, there):
        assert await read(store, bytes(32)) == data
    ranges = [request.headers.get("Range") for request in there.asked]
    assert ranges[0] is None
    assert len(ranges) >= 3
    assert all(wanted is not None and wanted.endswith(f"-{3 * MIB - 1}") for wanted in ranges[1:])


async def test_a_file_that_breaks_off_for_good(config: S3Config, tmp_path: Path) -> None:
    data = os.urandom(MIB)
    once = breaking_off(data, after_bytes=1000)
    async with failing(config, tmp_path, once, error(403, "AccessDenied")) as (store, _):
        opened = await store.open(bytes(32))
        assert await anext(aiter(opened)) == data[:1000]
        with pytest.raises(StoreUnavailable):
            await anext(aiter(opened))


def unfinished_page(key: str, initiated: str, *, is_last: bool) -> Any:
    async def answer(_: web.Request) -> web.StreamResponse:
        text = f"""<ListMultipartUploadsResult>
            <IsTruncated>{"false" if is_last else "true"}</IsTruncated>
            <NextKeyMarker>{key}</NextKeyMarker><NextUploadIdMarker>id of {key}</NextUploadIdMarker>
            <Upload><Key>{key}</Key><UploadId>id of {key}</UploadId><Initiated>{initiated}</Initiated></Upload>
            </ListMultipartUploadsResult>"""
        return web.Response(text=text, content_type="application/xml")

    return answer


async def test_parts_of_uploads_that_go_on_are_left_alone(config: S3Config, tmp_path: Path) -> None:
    """All pages are looked at."""
    clock = FastClock(speed=1)
    now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
    times = [(now - timedelta(seconds=seconds)).isoformat() for seconds in (3500, 3700)]
    new, old = unfinished_page("new", times[0], is_last=False), unfinished_page("old", times[1], is_last=True)
    async with failing(config, tmp_path, new, old, good) as (_, there):
        address = f"http://127.0.0.1:{there.port}"
        async with opened_store(replace(config, endpoint_url=address), tmp_path, clock) as store:
            assert await store.sweep_incoming(older_than_seconds=3600) == 1
    assert [request.method for request in there.asked] == ["GET", "GET", "DELETE"]
    assert there.asked[1].query["key-marker"] == "new"
    assert there.asked[2].query["uploadId"] == "id of old"


async def test_a_store_that_cannot_tell_what_is_unfinished(config: S3Config, tmp_path: Path) -> None:
    async with failing(config, tmp_path, error(501, "NotImplemented")) as (store, _):
        assert await store.sweep_incoming(older_than_seconds=1) == 0
