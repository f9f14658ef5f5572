"""Requests over a WebSocket, behind a real Hypercorn, by a real client."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY

from homeserver.web.dispatch import prepare
from homeserver.web.endpoint import EMPTY, Request, Response, Section
from homeserver.web.websocket_calls import CallResolver
from homeserver.web.websocket_socket import CloseCode, WebSocketSettings
from tests.web.websocket_site import SEND_PATH, Site, opened


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """All example endpoints behind a server, with the usual limits."""
    async with opened() as ready:
        yield ready


async def test_requests_by_operation(site: Site) -> None:
    async with site.client() as client:
        assert await client.ask("send_message", path=SEND_PATH, body={"body": "é"}, query={"ts": 5}) == {
            "status": 200,
            "body": {"event_id": "$t1"},
        }
    seen = site.witness.last
    assert (seen.path, seen.query, seen.body) == (SEND_PATH, {"ts": ["5"]}, {"body": "é"})
    assert (seen.method, seen.ip, seen.requester.user_id) == ("PUT", "127.0.0.1", "@alice:test")


async def test_requests_by_method_and_path(site: Site) -> None:
    async with site.client() as client:
        path = "/_matrix/client/r0/rooms/%21a%2Fb%3Ac/send/m.room.message/t1?ts=5&a=b"
        await client.tell({"id": "x", "method": "PUT", "path": path, "query": {"ts": 6}, "body": {}})
        assert await client.hear() == {"id": "x", "status": 200, "body": {"event_id": "$t1"}}
    assert (site.witness.last.path, site.witness.last.query) == (SEND_PATH, {"ts": ["6"], "a": ["b"]})


async def test_the_last_parameter_may_be_left_out(site: Site) -> None:
    async with site.client() as client:
        answer = await client.ask("get_state", path={"room_id": "!r", "event_type": "m.room.name"})
        assert answer["body"]["path"]["state_key"] == ""


@pytest.mark.parametrize(
    ("frame", "status", "errcode"),
    [
        ({"operation": "nothing"}, 404, "M_UNRECOGNIZED"),
        ({"operation": "send_transaction", "path": {"txn_id": "1"}}, 404, "M_UNRECOGNIZED"),
        ({"method": "PUT", "path": "/_matrix/federation/v1/send/1"}, 404, "M_UNRECOGNIZED"),
        ({"method": "GET", "path": "/_matrix/client/v3/logout"}, 405, "M_UNRECOGNIZED"),
        ({"method": "GET", "path": "nowhere"}, 404, "M_UNRECOGNIZED"),
        ({"method": "GET", "path": "/_matrix/client/versions?a=%ff"}, 400, "M_INVALID_PARAM"),
        ({"operation": "get_state", "path": {"room_id": "!r"}}, 400, "M_MISSING_PARAM"),
        ({"operation": "get_state", "path": {"room_id": "!r", "event_type": ""}}, 400, "M_MISSING_PARAM"),
        ({"operation": "get_versions", "path": {"a": "b"}}, 400, "M_INVALID_PARAM"),
        ({"operation": "login", "body": {}}, 400, "M_MISSING_PARAM"),
        ({"operation": "login", "body": []}, 400, "M_BAD_JSON"),
        ({"operation": "login"}, 400, "M_NOT_JSON"),
        ({"operation": "for_admin"}, 403, "M_FORBIDDEN"),
        ({"operation": "GET_not_found"}, 404, "M_NOT_FOUND"),
        ({"operation": "PUT_bug"}, 500, "M_UNKNOWN"),
        ({"operation": "respond_number"}, 500, "M_UNKNOWN"),
        ({"operation": "open_websocket"}, 426, "M_UNKNOWN"),
    ],
)
async def test_errors_are_those_of_http(site: Site, frame: dict[str, Any], status: int, errcode: str) -> None:
    async with site.client() as client:
        await client.tell({"id": 1, **frame})
        answer = await client.hear()
        assert (answer["id"], answer["status"], answer["body"]["errcode"]) == (1, status, errcode)
        assert (await client.ask("get_versions"))["status"] == 200


async def test_rate_limits_are_those_of_http(site: Site) -> None:
    async with site.client() as client:
        call = {"path": SEND_PATH, "body": {}}
        assert [(await client.ask("send_message", **call))["status"] for _ in range(2)] == [200, 200]
        limited = await client.ask("send_message", **call)
        assert (limited["status"], limited["headers"]) == (429, {"Retry-After": "1"})
        assert limited["body"]["retry_after_ms"] == 1000
        target = "/_matrix/client/v3/rooms/!r/send/a/b"
        assert (await site.web.call("PUT", target, token="alice", body={})).status == 429


async def test_answers_come_in_any_order(site: Site) -> None:
    async with site.client() as client:
        await client.tell({"id": "slow", "operation": "slow_read"})
        await site.witness.started.wait()
        assert (await client.ask("get_versions"))["status"] == 200
        await client.tell({"id": "slow", "operation": "get_versions"})
        complaint = await client.hear()
        assert (complaint["id"], complaint["error"]["errcode"]) == ("slow", "M_INVALID_PARAM")
        site.witness.go_on.set()
        assert await client.hear() == {"id": "slow", "status": 200, "body": {}}
        await client.tell({"id": "slow", "operation": "get_versions"})
        assert (await client.hear())["status"] == 200


async def test_media_in_base64(site: Site) -> None:
    async with site.client() as client:
        upload = await client.ask("upload_content", body_base64="AP8A", content_type="image/png")
        assert upload["body"] == {"size": 3, "content_type": "image/png"}
        content = await client.ask("get_content", path={"size": "2"})
        assert (content["content_type"], len(content["body_base64"])) == ("image/png", 2668)


async def test_media_that_is_too_large_for_a_frame() -> None:
    async with opened(WebSocketSettings(answer_bytes_max=10_000)) as site, site.client() as client:
        assert (await client.ask("get_content", path={"size": "10"}))["status"] == 200
        answer = await client.ask("get_content", path={"size": "11"})
        assert (answer["status"], answer["body"]["errcode"]) == (413, "M_TOO_LARGE")


async def test_malformed_frames_are_complained_of(site: Site) -> None:
    async with site.client() as client:
        wrong = ((b"\0", "M_BAD_JSON", None), ("{", "M_NOT_JSON", None), ({"id": "a"}, "M_MISSING_PARAM", "a"))
        for frame, errcode, frame_id in wrong:
            await client.tell(frame)
            complaint = await client.hear()
            assert (complaint["error"]["errcode"], complaint.get("id")) == (errcode, frame_id)
        assert (await client.ask("get_versions"))["status"] == 200


async def test_nothing_but_malformed_frames_ends_the_socket() -> None:
    async with opened(WebSocketSettings(malformed_max=3)) as site, site.client() as client:
        for _ in range(2):
            for _ in range(2):
                await client.tell("{")
                await client.hear()
            assert (await client.ask("get_versions"))["status"] == 200
        for _ in range(3):
            await client.tell("{")
        assert await client.closed() == CloseCode.MALFORMED_FRAMES


async def test_large_frames_end_the_socket() -> None:
    async with opened(WebSocketSettings(frame_bytes_max=1000)) as site:
        async with site.client() as client:
            assert (await client.ask("optional_body", body={"a": "x" * 900}))["status"] == 200
            await client.tell({"id": 1, "operation": "optional_body", "body": {"a": "é" * 500}})
            assert await client.closed() == CloseCode.MESSAGE_TOO_BIG
        async with site.client() as client:
            assert (await client.ask("get_versions"))["status"] == 200


async def test_so_many_requests_at_once_and_no_more() -> None:
    async with opened(WebSocketSettings(requests_max=2)) as site, site.client() as client:
        for number in range(40):
            await client.tell({"id": number, "operation": "slow_read"})
        await client.tell({"id": "last", "operation": "get_versions"})
        await site.witness.started.wait()
        running = REGISTRY.get_sample_value("heliograph_requests_in_flight")
        assert running is not None
        assert running <= 2
        site.witness.go_on.set()
        answers = [await client.hear() for _ in range(41)]
        assert {answer["id"] for answer in answers} == {*range(40), "last"}
        assert all(answer["status"] == 200 for answer in answers)


async def test_reads_end_with_the_socket_and_writes_do_not(site: Site) -> None:
    async with site.client() as client:
        await client.tell({"id": 1, "operation": "slow_read"})
        await site.witness.started.wait()
        site.witness.started.clear()
        await client.tell({"id": 2, "operation": "slow_write"})
        await site.witness.started.wait()
    await site.witness.cancelled.wait()
    assert not site.witness.finished.is_set()
    site.witness.go_on.set()
    await site.witness.finished.wait()


async def test_each_request_is_told_of(site: Site) -> None:
    async with site.client() as client:
        with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            await client.ask("get_versions")
            await client.ask("for_user")
    first, second = (line for line in lines if line["event"] == "request")
    assert (first["operation"], first["transport"], first["status"]) == ("get_versions", "websocket", 200)
    assert (second["operation"], second["requester"]) == ("for_user", "@alice:test")
    assert first["request_id"] != second["request_id"]


def test_the_transports_own_operations_are_taken() -> None:
    section = Section("Taken")

    @section.endpoint("GET", "/x")
    async def authenticate(request: Request) -> Response:
        return EMPTY

    with pytest.raises(ValueError, match="authenticate"):
        CallResolver(prepare([section]))
