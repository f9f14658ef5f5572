"""Asking other servers: signed, bounded, and with the outcome told to the back-off."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from federation.outbound.target import Target
from homeserver.core.errors import RemoteRefused, RemoteUnavailable
from homeserver.core.ids import ServerName
from storage.database import Database
from tests.fast_clock import FastClock
from tests.federation.certificates import CertificateAuthority
from tests.federation.peer import Peer
from tests.federation.signed_http import Received
from tests.federation.transport.ways import US, Ways, open_ways
from tests.waiting import wait_until

PATH = "/_matrix/federation/v1/thing/{name}"
THING = "/_matrix/federation/v1/thing/%21a%2Fb"


async def test_requests_are_signed(ways: Ways, peer: Peer) -> None:
    """The peer checks each signature by its own means."""
    peer.answers |= {f"{method} {PATH}": lambda request: {"got": request.body} for method in ("GET", "PUT", "POST")}
    content = {"b": ["ä", 1, None], "a": {"signatures": {"x": {"y": "z"}}}}
    assert await ways.client.get(peer.name, THING, query={"v": ["$1", "$2 +"], "limit": "3"}) == {"got": None}
    assert await ways.client.put(peer.name, THING, content) == {"got": content}
    assert await ways.client.post(peer.name, THING, b'{"a":1}') == {"got": {"a": 1}}
    assert not peer.faults
    assert {request.origin for request in peer.received} == {US}
    first = peer.received[0]
    assert (first.path["name"], first.query) == ("!a/b", {"v": ["$1", "$2 +"], "limit": ["3"]})


async def test_a_large_body_is_signed_too(ways: Ways, peer: Peer) -> None:
    peer.answers[f"PUT {PATH}"] = {}
    await ways.client.put(peer.name, THING, {"large": ["x" * 1000] * 1000})
    assert not peer.faults


@pytest.mark.parametrize(
    ("status", "body", "errcode"),
    [
        (403, {"errcode": "M_FORBIDDEN", "error": "No"}, "M_FORBIDDEN"),
        (404, {"errcode": "M_UNRECOGNIZED", "error": "No"}, "M_UNRECOGNIZED"),
        (400, {"errcode": "M_INCOMPATIBLE_ROOM_VERSION", "error": "", "room_version": "9", "x": 1}, None),
        (500, {"errcode": "M_UNKNOWN"}, "M_UNKNOWN"),
        (404, "<html>", "M_UNKNOWN"),
        (400, {"errcode": 5, "error": {}}, "M_UNKNOWN"),
        (400, [], "M_UNKNOWN"),
        (418, {"errcode": "x" * 1000, "error": "y" * 100_000}, "M_UNKNOWN"),
    ],
)
async def test_errors_of_the_other_server(ways: Ways, peer: Peer, status: int, body: Any, errcode: str | None) -> None:
    """None of them means that the server is away."""
    peer.answers[f"GET {PATH}"] = (status, body)
    with pytest.raises(RemoteRefused) as caught:
        await ways.client.get(peer.name, THING)
    assert caught.value.status == status
    assert caught.value.remote_errcode == (errcode or body["errcode"])
    assert len(caught.value.message) < 1000
    if errcode is None:
        assert caught.value.body()["room_version"] == "9"
        assert "x" not in caught.value.body()
    assert await ways.destinations.is_due(peer.name)


async def ask_in_vain(ways: Ways, server: ServerName, **options: Any) -> None:
    with pytest.raises(RemoteUnavailable):
        await ways.client.get(server, THING, **options)


@pytest.mark.parametrize("status", [502, 503, 504, 302])
async def test_answers_of_what_stands_before_a_server_that_is_away(ways: Ways, peer: Peer, status: int) -> None:
    peer.answers[f"GET {PATH}"] = (status, {})
    with pytest.raises((RemoteRefused, RemoteUnavailable)):
        await ways.client.get(peer.name, THING)
    assert not await ways.destinations.is_due(peer.name)


async def test_nonsense_is_a_failure(ways: Ways, peer: Peer) -> None:
    peer.answers[f"GET {PATH}"] = lambda _: web.Response(text="{'no': 'json'}")
    await ask_in_vain(ways, peer.name)
    assert not await ways.destinations.is_due(peer.name)


async def test_deep_json_is_nonsense(ways: Ways, peer: Peer) -> None:
    peer.answers[f"GET {PATH}"] = lambda _: web.Response(text="[" * 5000 + "]" * 5000)
    await ask_in_vain(ways, peer.name)


async def test_a_server_that_fails_is_left_alone_for_a_while(ways: Ways, peer: Peer, clock: FastClock) -> None:
    peer.answers[f"GET {PATH}"] = (503, {})
    for _ in range(5):
        with pytest.raises((RemoteRefused, RemoteUnavailable)):
            await ways.client.get(peer.name, THING)
    assert len(peer.asked("thing")) == 1
    peer.answers[f"GET {PATH}"] = {"well": True}
    await ask_in_vain(ways, peer.name)
    assert await ways.client.get(peer.name, THING, retry_failed=True) == {"well": True}
    assert await ways.client.get(peer.name, THING) == {"well": True}
    clock.advance(1)


async def test_429_is_respected(ways: Ways, peer: Peer, clock: FastClock) -> None:
    peer.answers[f"GET {PATH}"] = (429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 20_000})
    with pytest.raises(RemoteRefused) as caught:
        await ways.client.get(peer.name, THING)
    assert caught.value.extra["retry_after_ms"] == 20_000
    await ask_in_vain(ways, peer.name)
    assert (await ways.destinations.status(peer.name)).failing_since_ts is None
    clock.advance(21)
    with pytest.raises(RemoteRefused):
        await ways.client.get(peer.name, THING)


async def test_large_answers_are_refused_but_are_no_failure(ways: Ways, peer: Peer) -> None:
    peer.answers[f"GET {PATH}"] = {"large": "x" * 10_000}
    await ask_in_vain(ways, peer.name, bytes_max=1000)
    assert await ways.destinations.is_due(peer.name)


async def test_slow_answers_end_in_time(ways: Ways, peer: Peer) -> None:
    async def never(_: Received) -> None:
        await asyncio.Event().wait()

    peer.answers[f"GET {PATH}"] = never
    await ask_in_vain(ways, peer.name, timeout_seconds=0.3)
    assert not await ways.destinations.is_due(peer.name)


@pytest.mark.parametrize("method", ["get", "put", "post"])
async def test_only_what_may_be_sent_twice_is(ways: Ways, peer: Peer, method: str) -> None:
    """A connection that breaks: GET and PUT are tried once more, POST is not."""

    def answer(_: Received) -> Any:
        if len(peer.asked("thing")) == 1:
            return Hangup()
        return {"second": True}

    peer.answers[f"{method.upper()} {PATH}"] = answer
    body: tuple[dict[str, Any], ...] = () if method == "get" else ({},)
    if method == "post":
        with pytest.raises(RemoteUnavailable):
            await ways.client.post(peer.name, THING, {})
        assert len(peer.asked("thing")) == 1
    else:
        assert await getattr(ways.client, method)(peer.name, THING, *body) == {"second": True}
        assert len(peer.asked("thing")) == 2


class Hangup(web.StreamResponse):
    """Ends the connection before a status is there."""

    async def prepare(self, request: web.BaseRequest) -> None:
        assert request.transport is not None
        request.transport.abort()
        return


async def test_it_does_not_ask_itself_nor_whom_it_may_not(
    db: Database, clock: FastClock, authority: CertificateAuthority, peer: Peer
) -> None:
    async with open_ways(db, clock, authority, denied=["localhost"]) as ways:
        await ask_in_vain(ways, US)
        await ask_in_vain(ways, peer.name, retry_failed=True)
    assert not peer.received


async def test_answers_as_they_come(ways: Ways, peer: Peer) -> None:
    release = asyncio.Event()
    peer.answers[f"PUT {PATH}"] = lambda _: Slowly(release)
    async with aclosing(ways.client.put_streamed(peer.name, THING, {}, bytes_max=100)) as chunks:
        assert await anext(chunks) == b'{"a":'
        release.set()
        assert [chunk async for chunk in chunks] == [b"1}"]
    assert (await ways.destinations.status(peer.name)).last_success_ts > 0


async def test_answers_as_they_come_are_bounded(ways: Ways, peer: Peer) -> None:
    peer.answers[f"GET {PATH}"] = {"large": "x" * 200_000}
    with pytest.raises(RemoteUnavailable):
        async with aclosing(ways.client.get_streamed(peer.name, THING, bytes_max=150_000)) as chunks:
            async for _ in chunks:
                pass


class Slowly(web.StreamResponse):
    """Sends its second half when it is told to."""

    def __init__(self, release: asyncio.Event) -> None:
        super().__init__()
        self._release = release

    async def prepare(self, request: web.BaseRequest) -> Any:
        prepared = await super().prepare(request)
        await self.write(b'{"a":')
        await self._release.wait()
        await self.write(b"1}")
        return prepared


class Places:
    """A discovery that a test tells."""

    def __init__(self, *targets: Target) -> None:
        self.found = targets

    async def targets(self, _: ServerName) -> tuple[Target, ...]:
        return self.found


async def test_the_next_place_is_tried(
    db: Database, clock: FastClock, authority: CertificateAuthority, peer: Peer
) -> None:
    """And the name that was delegated to stands in `Host` and in the certificate, not in the signature."""
    closed = Target("127.0.0.1", 1, "localhost", "localhost")
    wrong = Target("localhost", peer.name.port or 0, "other.test", "other.test")
    right = Target("127.0.0.1", peer.name.port or 0, "delegated.test", "localhost")
    async with open_ways(db, clock, authority, discovery=Places(closed, wrong, right), peers=[peer]) as ways:
        peer.answers[f"GET {PATH}"] = {"found": True}
        assert await ways.client.get(peer.name, THING) == {"found": True}
    async with open_ways(db, clock, authority, discovery=Places(closed, wrong)) as ways:
        await ask_in_vain(ways, peer.name)
        assert not await ways.destinations.is_due(peer.name)


async def test_requests_to_one_server_wait_for_each_other(
    db: Database, clock: FastClock, authority: CertificateAuthority, peer: Peer, other_peer: Peer
) -> None:
    """A slow server holds up its own requests, and no other server's."""
    release = asyncio.Event()

    async def slow(_: Received) -> dict[str, Any]:
        await release.wait()
        return {}

    peer.answers[f"GET {PATH}"] = slow
    other_peer.answers[f"GET {PATH}"] = {}
    slots = {"total_max": 3, "per_destination_max": 2}
    async with open_ways(db, clock, authority, slots=slots, peers=[peer, other_peer]) as ways:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(ways.client.get(peer.name, THING))
            await wait_until(lambda: len(peer.asked("thing")) == 2)
            await ways.client.get(other_peer.name, THING)
            await ask_in_vain(ways, peer.name, timeout_seconds=0.1)
            assert await ways.destinations.is_due(peer.name)
            assert len(peer.asked("thing")) == 2
            release.set()
        assert len(peer.asked("thing")) == 4
