"""Reading bodies within limits."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from homeserver.core.errors import NotJson, TooLarge
from homeserver.web.body import AsgiBody, ClientDisconnected, GivenBody, RequestTimeout, parse_body


def incoming(
    *chunks: bytes | None, announced: str | None = None, seconds: float = 5.0, ended: bool = True
) -> tuple[AsgiBody, Callable[[], int]]:
    """A body that comes in these chunks (None: the client goes away), and how many of them are still to come."""
    messages: list[Mapping[str, Any]] = [
        {"type": "http.disconnect"}
        if chunk is None
        else {"type": "http.request", "body": chunk, "more_body": not ended or number < len(chunks)}
        for number, chunk in enumerate(chunks, start=1)
    ]

    async def receive() -> Mapping[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    body = AsgiBody(receive, content_length=announced, read_seconds=seconds, chunk_seconds=seconds)
    return body, lambda: len(messages)


async def test_chunks_are_joined() -> None:
    assert await incoming(b"ab", b"", b"c")[0].read(bytes_max=3) == b"abc"
    assert await incoming(b"")[0].read(bytes_max=0) == b""


@pytest.mark.parametrize("chunks", [(b"abcd",), (b"ab", b"cd"), (b"", b"abcd")])
async def test_a_body_above_the_limit_is_refused(chunks: tuple[bytes, ...]) -> None:
    with pytest.raises(TooLarge) as raised:
        await incoming(*chunks)[0].read(bytes_max=3)
    assert raised.value.status == 413


async def test_reading_stops_where_the_limit_is_passed() -> None:
    body, left = incoming(*[b"x" * 100] * 50)
    with pytest.raises(TooLarge):
        await body.read(bytes_max=250)
    assert left() == 47


@pytest.mark.parametrize("announced", ["4", "99999999999999999999999999999999999999"])
async def test_an_announced_size_is_refused_before_anything_is_read(announced: str) -> None:
    body, left = incoming(b"abcd", announced=announced)
    with pytest.raises(TooLarge):
        await body.read(bytes_max=3)
    assert left() == 1
    with pytest.raises(TooLarge):
        await anext(body.stream(bytes_max=3))


async def test_a_slow_body_is_given_up() -> None:
    with pytest.raises(RequestTimeout) as raised:
        await incoming(b"a", ended=False, seconds=0.05)[0].read(bytes_max=3)
    assert raised.value.status == 408
    with pytest.raises(RequestTimeout):
        [part async for part in incoming(b"a", ended=False, seconds=0.05)[0].stream(bytes_max=3)]


async def test_a_client_that_goes_away() -> None:
    with pytest.raises(ClientDisconnected):
        await incoming(b"a", None)[0].read(bytes_max=3)
    with pytest.raises(ClientDisconnected):
        [part async for part in incoming(b"a", None)[0].stream(bytes_max=3)]


async def test_streams_pass_parts_on_and_stop_at_the_limit() -> None:
    assert [part async for part in incoming(b"ab", b"", b"c")[0].stream(bytes_max=3)] == [b"ab", b"c"]
    seen = []
    with pytest.raises(TooLarge):
        async for part in incoming(b"ab", b"cd")[0].stream(bytes_max=3):
            seen.append(part)
    assert seen == [b"ab"]


async def test_what_is_not_read_is_dropped_within_limits() -> None:
    body, left = incoming(*[b"x" * 100] * 50)
    await body.discard(bytes_max=250, seconds=5)
    assert left() == 47
    body, _ = incoming(b"x", ended=False)
    await body.discard(bytes_max=250, seconds=0.05)
    assert not body.complete


async def test_given_bodies_have_the_same_limits() -> None:
    assert await GivenBody(b"abc").read(bytes_max=3) == b"abc"
    assert [part async for part in GivenBody(b"abc").stream(bytes_max=3)] == [b"abc"]
    with pytest.raises(TooLarge):
        await GivenBody(b"abcd").read(bytes_max=3)


def test_empty_bodies() -> None:
    assert parse_body(b"", required=False) == {}
    with pytest.raises(NotJson):
        parse_body(b"", required=True)


@pytest.mark.parametrize(
    "raw",
    [
        b" ",
        b"{",
        b"nul",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        b'"\\ud800"',
        b"1e999",
        b"[" * 100_000,
        b"[" * 102 + b"]" * 102,
        '{"a": 1}'.encode("utf-16"),
    ],
)
@pytest.mark.parametrize("required", [True, False])
def test_what_is_no_json(raw: bytes, required: bool) -> None:
    with pytest.raises(NotJson):
        parse_body(raw, required=required)


def test_what_is_json() -> None:
    assert parse_body(b' {"a": [1, null, "\\u0000\xc3\xa9"]} ', required=True) == {"a": [1, None, "\0é"]}
    assert parse_body(b"[" * 90 + b"]" * 90, required=True)
