"""Fetching other servers' media, of one that lies: https://spec.matrix.org/v1.19/server-server-api/#content-repository."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from federation.outbound.remote_media import FederationMedia
from homeserver.core.errors import MatrixError, RemoteRefused, RemoteUnavailable, TooLarge
from homeserver.core.ids import MxcUri
from homeserver.net.addresses import AddressPolicy
from homeserver.net.http_client import HttpClient
from homeserver.net.tls import client_tls
from storage.database import Database
from tests.fast_clock import FastClock
from tests.federation.certificates import CertificateAuthority
from tests.federation.peer import Peer
from tests.federation.transport.ways import open_ways

DOWNLOAD = "GET /_matrix/federation/v1/media/download/{media_id}"
OLD_DOWNLOAD = "GET /_matrix/media/v3/download/{server_name}/{media_id}"
ELSEWHERE = "GET /.well-known/media"  # where the peer answers whoever asks
BLOCKED = "127.0.0.2"


@pytest.fixture
async def source(database_url: str, authority: CertificateAuthority, peer: Peer) -> AsyncIterator[FederationMedia]:
    """Asks the peer; what it leads to may not lie on one address."""
    async with Database(database_url) as db, open_ways(db, FastClock(), authority, peers=[peer]) as ways:
        policy = AddressPolicy(blocklist=[ipaddress.ip_network(BLOCKED)])
        async with HttpClient(policy=policy, tls=client_tls(ca_file=authority.ca_file)) as http:
            yield FederationMedia(client=ways.client, http=http)


def multipart(
    data: bytes = b"Hello",
    *,
    headers: str = "Content-Type: text/plain\r\nContent-Disposition: inline; filename=a.txt",
    boundary: str = "b",
    raw: bytes | None = None,
    content_type: str | None = None,
) -> web.Response:
    """An answer with a file."""
    head = f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n{headers}\r\n\r\n"
    body = raw if raw is not None else head.encode() + data + f"\r\n--{boundary}--".encode()
    return web.Response(body=body, headers={"Content-Type": content_type or f"multipart/mixed; boundary={boundary}"})


async def fetched(
    source: FederationMedia, peer: Peer, *, bytes_max: int = 1000
) -> tuple[bytes, str | None, str | None]:
    async with source.open(MxcUri(f"mxc://{peer.name}/abc"), bytes_max=bytes_max, timeout_ms=1) as file:
        data = b"".join([chunk async for chunk in file.chunks])
        return data, file.content_type, file.file_name


async def test_a_file_and_what_is_said_of_it(source: FederationMedia, peer: Peer) -> None:
    peer.answers[DOWNLOAD] = lambda _: multipart()
    assert await fetched(source, peer) == (b"Hello", "text/plain", "a.txt")
    (request,) = peer.asked("media")
    assert (request.origin, request.path["media_id"], request.query["timeout_ms"]) == ("us.test", "abc", ["1"])


@pytest.mark.parametrize(
    "data", [b"", b"\r\n", b"\r\n--", b"\r\n--b" + b"x", b"--b", b"x" * 300_000, b"\r\n-" * 50_000]
)
async def test_files_that_look_like_boundaries(source: FederationMedia, peer: Peer, data: bytes) -> None:
    boundary = "b0undary"
    peer.answers[DOWNLOAD] = lambda _: multipart(data, boundary=boundary)
    assert (await fetched(source, peer, bytes_max=1_000_000))[0] == data


async def test_a_part_without_headers(source: FederationMedia, peer: Peer) -> None:
    raw = b"preamble\r\n--b \r\n\r\n{}\r\n--b\r\n\r\nHello\r\n--b--\r\nepilogue"
    peer.answers[DOWNLOAD] = lambda _: multipart(raw=raw, content_type='Multipart/Mixed; x=y; Boundary="b"')
    assert await fetched(source, peer) == (b"Hello", None, None)


@pytest.mark.parametrize(
    "answer",
    [
        {"raw": b""},
        {"raw": b"--b\r\n\r\n{}\r\n--b--"},
        {"raw": b"--b\r\n\r\n{}\r\n--b\r\n\r\nends too early"},
        {"raw": b"--bb\r\n\r\n{}\r\n--bb\r\n\r\nx\r\n--bb--"},
        {"raw": b"--b\r\nX: " + b"x" * 200_000},
        {"raw": b"x" * 200_000},
        {"content_type": "multipart/mixed"},
        {"content_type": "text/plain"},
        {"content_type": "multipart/form-data; boundary=b"},
        {"content_type": f"multipart/mixed; boundary={'b' * 100}"},
    ],
)
async def test_what_is_no_answer(source: FederationMedia, peer: Peer, answer: dict[str, Any]) -> None:
    peer.answers[DOWNLOAD] = lambda _: multipart(**answer)
    with pytest.raises(RemoteUnavailable):
        await fetched(source, peer, bytes_max=1_000_000)


async def test_a_file_that_is_too_large(source: FederationMedia, peer: Peer) -> None:
    """Lesson S35: it is not read to its end, whether its size is announced or not."""
    peer.answers[DOWNLOAD] = lambda _: multipart(b"x" * 2_000_000)
    with pytest.raises(TooLarge):
        await fetched(source, peer)


async def test_a_server_of_an_older_version(source: FederationMedia, peer: Peer) -> None:
    headers = {"Content-Type": "text/plain", "Content-Disposition": "inline; filename*=utf-8''%C3%BC"}
    peer.answers[OLD_DOWNLOAD] = lambda _: web.Response(body=b"old", headers=headers)
    assert await fetched(source, peer) == (b"old", "text/plain", "ü")
    (request,) = [each for each in peer.received if each.target.startswith("/_matrix/media/")]
    assert request.query["allow_remote"] == ["false"]
    assert request.path == {"server_name": peer.name, "media_id": "abc"}


@pytest.mark.parametrize(
    ("status", "errcode"), [(404, "M_NOT_FOUND"), (504, "M_NOT_YET_UPLOADED"), (403, "M_FORBIDDEN")]
)
async def test_a_refusal_is_no_older_version(source: FederationMedia, peer: Peer, status: int, errcode: str) -> None:
    peer.answers[DOWNLOAD] = (status, {"errcode": errcode, "error": "No"})
    with pytest.raises(MatrixError) as caught:
        await fetched(source, peer)
    assert isinstance(caught.value, RemoteRefused)
    assert caught.value.remote_errcode == errcode
    assert not [each for each in peer.received if each.target.startswith("/_matrix/media/")]


async def test_a_file_that_lies_elsewhere(source: FederationMedia, peer: Peer) -> None:
    location = f"https://{peer.name}/.well-known/media"
    peer.answers[DOWNLOAD] = lambda _: multipart(b"", headers=f"Location: {location}")
    peer.answers[ELSEWHERE] = lambda _: web.Response(body=b"there", headers={"Content-Type": "image/png"})
    assert await fetched(source, peer) == (b"there", "image/png", None)
    assert peer.received[-1].origin is None, "nothing is signed for whoever has the file"


@pytest.mark.parametrize("scheme", ["http", "file", "ftp"])
async def test_a_file_that_lies_where_nobody_protects_it(source: FederationMedia, peer: Peer, scheme: str) -> None:
    location = f"{scheme}://{peer.name}/.well-known/media"
    peer.answers[DOWNLOAD] = lambda _: multipart(b"", headers=f"Location: {location}")
    with pytest.raises(RemoteUnavailable):
        await fetched(source, peer)


@pytest.mark.parametrize("first", [True, False])
async def test_a_file_that_lies_within_our_network(source: FederationMedia, peer: Peer, first: bool) -> None:
    """Lesson S34: neither the place nor where that redirects to may be an address that is blocked."""
    connections = 0

    async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    async with await asyncio.start_server(connected, BLOCKED, 0) as inner:
        target = f"https://{BLOCKED}:{inner.sockets[0].getsockname()[1]}/secret"
        location = target if first else f"https://{peer.name}/.well-known/media"
        peer.answers[DOWNLOAD] = lambda _: multipart(b"", headers=f"Location: {location}")
        peer.answers[ELSEWHERE] = lambda _: web.Response(status=307, headers={"Location": target})
        with pytest.raises(RemoteUnavailable):
            await fetched(source, peer)
    assert connections == 0
