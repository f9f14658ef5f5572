"""Endpoints behind a real Hypercorn, at the level of the socket: what well and badly behaved clients write."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
import structlog

from homeserver.web.http import HttpSettings
from tests.web.example_sections import Witness, echo_section, failing_section, slow_section
from tests.web.harness import Web, raw_exchange, served, web

SEND = "/_matrix/client/v3/rooms/!r/send/m.room.message/t1"
HEAD = f"PUT {SEND} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer alice\r\n".encode()
CLOSE = b"Connection: close\r\n"
GET_VERSIONS = b"GET /_matrix/client/versions HTTP/1.1\r\nHost: test\r\n"


@pytest.fixture
def witness() -> Witness:
    """Sees what endpoints are asked."""
    return Witness()


@pytest.fixture
async def site(witness: Witness) -> AsyncIterator[Web]:
    """All example endpoints, with little patience."""
    sections = (echo_section(witness), failing_section(), slow_section(witness))
    async with web(
        *sections, http=HttpSettings(body_seconds=0.3, body_chunk_seconds=0.3, send_seconds=0.5, discard_seconds=0.5)
    ) as opened:
        yield opened


def responses(received: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each response in what a connection brought; all of them have a Content-Length."""
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        size = int(lengths[0].partition(b":")[2]) if lengths else 0
        found.append((status, received[:size]))
        received = received[size:]
    return found


def errcodes(received: bytes) -> list[tuple[int, str]]:
    """Status and errcode of each response."""
    return [(status, orjson.loads(body).get("errcode", "") if body else "") for status, body in responses(received)]


async def still_serving(port: int) -> bool:
    """Whether another connection is served."""
    return errcodes(await raw_exchange(port, GET_VERSIONS + CLOSE + b"\r\n")) == [(200, "")]


async def test_one_connection_serves_many_requests(site: Web, witness: Witness) -> None:
    put = HEAD + b"Content-Length: 2\r\n\r\n{}"
    async with served(site.app) as port:
        received = await raw_exchange(port, put * 3 + GET_VERSIONS + b"\r\n" + GET_VERSIONS + CLOSE + b"\r\n")
    assert errcodes(received) == [(200, "")] * 5
    assert [request.operation for request in witness.requests] == ["send_message"] * 3 + ["get_versions"] * 2


async def test_errors_keep_the_connection(site: Web) -> None:
    wrong = [
        HEAD + b"Content-Length: 1\r\n\r\n{",
        HEAD + b"Content-Length: 2\r\n\r\n[]",
        HEAD.replace(b"alice", b"wrong") + b"Content-Length: 2\r\n\r\n{}",
        GET_VERSIONS.replace(b"versions", b"nowhere") + b"\r\n",
        GET_VERSIONS.replace(b"versions", b"v3/fail/bug") + b"\r\n",
        GET_VERSIONS.replace(b"GET", b"HEAD").replace(b"versions", b"v3/respond/empty") + b"\r\n",
    ]
    async with served(site.app) as port:
        with structlog.testing.capture_logs():
            received = await raw_exchange(port, b"".join(wrong) + GET_VERSIONS + CLOSE + b"\r\n")
    expected = ["M_NOT_JSON", "M_BAD_JSON", "M_UNKNOWN_TOKEN", "M_UNRECOGNIZED", "M_UNKNOWN", "", ""]
    assert [errcode for _, errcode in errcodes(received)] == expected
    assert [status for status, _ in errcodes(received)] == [400, 400, 401, 404, 500, 204, 200]


async def test_chunked_bodies(site: Web, witness: Witness) -> None:
    head = HEAD + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n"
    async with served(site.app) as port:
        received = await raw_exchange(port, head, b'5\r\n{"a":\r\n', b"3\r\n12}\r\n", b"0\r\n\r\n")
        assert errcodes(received) == [(200, "")]
        assert witness.last.body == {"a": 12}
        too_large = b"".join(b"1000\r\n" + b"x" * 0x1000 + b"\r\n" for _ in range(20))
        assert errcodes(await raw_exchange(port, head, too_large)) == [(413, "M_TOO_LARGE")]
        assert await still_serving(port)


async def test_huge_bodies_are_refused_and_the_client_sees_it(site: Web, witness: Witness) -> None:
    """The client goes on writing for a while, as clients do; it must find the answer and not a reset connection."""
    async with served(site.app) as port:
        head = HEAD + CLOSE + b"Content-Length: 8000000\r\n\r\n"
        assert errcodes(await raw_exchange(port, head, *[b"x" * 100_000] * 80)) == [(413, "M_TOO_LARGE")]
        announced = HEAD + CLOSE + b"Content-Length: 99999999999999999\r\n\r\n"
        assert errcodes(await raw_exchange(port, announced)) == [(413, "M_TOO_LARGE")]
        nowhere = b"PUT /_matrix/nowhere HTTP/1.1\r\nHost: test\r\n" + CLOSE + b"Content-Length: 8000000\r\n\r\n"
        assert errcodes(await raw_exchange(port, nowhere, *[b"x" * 100_000] * 80)) == [(404, "M_UNRECOGNIZED")]
        assert await still_serving(port)
    assert [request.operation for request in witness.requests] == ["get_versions"]


async def test_slow_bodies_are_given_up(site: Web, witness: Witness) -> None:
    async with served(site.app) as port:
        received = await raw_exchange(port, HEAD + CLOSE + b"Content-Length: 10\r\n\r\n{")
        assert errcodes(received) == [(408, "M_UNKNOWN")]
        upload = b"POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer alice\r\n"
        received = await raw_exchange(port, upload + CLOSE + b"Content-Length: 10\r\n\r\nx")
        assert errcodes(received) == [(408, "M_UNKNOWN")]
        assert await still_serving(port)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (HEAD + CLOSE + b'Content-Length: 9\r\n\r\n{"a":"\xff"}', 400),
        (b"GET /_matrix/client/v3/rooms/%ff/state/a/ HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n", 400),
        (b"GET /_matrix/client/v3/rooms/\xff/state/a/ HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n", 400),
        (b"GET http://a/_matrix/client/versions HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n", 200),
        (b"GET ? HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n", 404),
        (b"GET http://[/x HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n", 204),
        (b"BREW /_matrix/client/versions HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n", 405),
        (b"GET /_matrix/client/versions HTTP/1.1\r\nHost: a\r\nX: \xff\xfe\r\n" + CLOSE + b"\r\n", 200),
        (b"GET /" + b"a/" * 5000 + b" HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n", 404),
        (b"GET /_matrix/client/versions HTTP/1.0\r\n\r\n", 200),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"NONSENSE\r\n\r\n", 400),
    ],
)
async def test_odd_requests(site: Web, request_bytes: bytes, status: int) -> None:
    async with served(site.app) as port:
        received = await raw_exchange(port, request_bytes)
        assert [status for status, _ in responses(received)] == [status]
        assert await still_serving(port)


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: +2\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
    ],
)
async def test_smuggled_requests_are_not_served(site: Web, witness: Witness, framing: bytes) -> None:
    """Where a proxy and this server might disagree on where a request ends, nothing behind it may be taken for one."""
    async with served(site.app) as port:
        smuggled = HEAD + framing + b"\r\n0\r\n\r\n" + GET_VERSIONS + b"\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(smuggled)
        received = b""
        async with asyncio.timeout(8):
            while part := await reader.read(65536):
                received += part
        writer.close()
        assert "get_versions" not in [request.operation for request in witness.requests]
        assert [status for status, _ in responses(received)] in ([400], [501], [408])
        assert await still_serving(port)


async def test_a_read_ends_with_its_connection(site: Web, witness: Witness) -> None:
    async with served(site.app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /_matrix/client/v3/slow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\n\r\n")
        await witness.started.wait()
        writer.close()
        await witness.cancelled.wait()


async def test_a_write_outlives_its_connection(site: Web, witness: Witness) -> None:
    async with served(site.app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PUT /_matrix/client/v3/slow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\n\r\n")
        await witness.started.wait()
        writer.close()
        await writer.wait_closed()
        assert await still_serving(port)
        with structlog.testing.capture_logs() as lines:
            witness.go_on.set()
            await witness.finished.wait()
            assert await still_serving(port)
    assert not witness.cancelled.is_set()
    assert [line for line in lines if line["log_level"] != "info"] == []


async def test_an_upload_that_breaks_off(site: Web, witness: Witness) -> None:
    async with served(site.app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head = b"POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\n"
        writer.write(head + b"Content-Length: 5000\r\n\r\n" + b"x" * 1000)
        await witness.started.wait()
        writer.close()
        with structlog.testing.capture_logs() as lines:
            await witness.finished.wait()
            assert await still_serving(port)
    assert [line for line in lines if line["log_level"] != "info"] == []
    assert "upload_content" not in [request.operation for request in witness.requests]


async def test_a_large_upload_is_passed_on_in_parts(site: Web) -> None:
    async with served(site.app) as port:
        head = b"POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\n" + CLOSE
        received = await raw_exchange(port, head + b"Content-Length: 1000000\r\n\r\n", *[b"x" * 10_000] * 100)
    assert orjson.loads(responses(received)[0][1])["size"] == 1_000_000


async def test_streamed_answers(site: Web, witness: Witness) -> None:
    async with served(site.app) as port:
        head = (
            b"GET /_matrix/client/v1/media/download/%d HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\n" + CLOSE
        )
        received = await raw_exchange(port, head % 1000 + b"\r\n")
        assert received.count(b"x") > 1_000_000 - 1
        assert received.endswith(b"0\r\n\r\n")
        with structlog.testing.capture_logs() as lines:
            broken = await raw_exchange(port, head % -10 + b"\r\n")
        assert not broken.endswith(b"0\r\n\r\n"), "an answer that broke off must not look complete"
        assert [line["event"] for line in lines if line["log_level"] == "error"] == ["an answer broke off"]
        assert await still_serving(port)


async def test_a_stream_ends_with_its_client(site: Web, witness: Witness) -> None:
    async with served(site.app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /_matrix/client/v1/media/download/1000000 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\n\r\n"
        )
        await reader.read(1000)
        writer.transport.abort()
        await witness.finished.wait()
        assert await still_serving(port)


async def test_a_client_that_does_not_read_is_given_up(site: Web, witness: Witness) -> None:
    async with served(site.app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(
            b"GET /_matrix/client/v1/media/download/1000000 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\n\r\n"
        )
        await witness.finished.wait()
        assert await still_serving(port)
        writer.transport.abort()
        del reader
