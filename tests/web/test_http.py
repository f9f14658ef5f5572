"""Endpoints over HTTP, through ASGI: requests, answers, access, errors, records."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY
from quart import Blueprint

from homeserver.web.dispatch import prepare
from homeserver.web.endpoint import EMPTY, Access, RateLimit, Request, Response, Section
from homeserver.web.http import HttpSettings
from homeserver.web.rate_limits import Rate
from tests.web.example_sections import Witness, access_section, echo_section, failing_section, slow_section
from tests.web.harness import ManualClock, Web, asgi_call, web

SEND = "/_matrix/client/v3/rooms/!r/send/m.room.message/t1"
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, POST, PUT, DELETE, OPTIONS",
    "access-control-allow-headers": "X-Requested-With, Content-Type, Authorization",
}


@pytest.fixture
def witness() -> Witness:
    """Sees what endpoints are asked."""
    return Witness()


@pytest.fixture
async def site(witness: Witness) -> AsyncIterator[Web]:
    """All example endpoints."""
    sections = (echo_section(witness), access_section(witness), failing_section(), slow_section(witness))
    rates = {RateLimit.MESSAGE: Rate(per_second=0.3, burst=2), RateLimit.LOGIN: Rate(per_second=1, burst=1)}
    http = HttpSettings(trusted_proxies=["10.0.0.0/8"])
    async with web(*sections, rates=rates, http=http) as opened:
        yield opened


async def test_an_answer_in_json(site: Web) -> None:
    reply = await site.call("GET", "/_matrix/client/versions")
    assert (reply.status, reply.json) == (200, {"versions": ["v1.19"]})
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["content-length"] == str(len(reply.body))
    assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/_matrix/client/versions", 200),
        ("OPTIONS", "/_matrix/client/versions", 204),
        ("OPTIONS", "/_matrix/client/unknown", 204),
        ("OPTIONS", "/%zz", 204),
        ("GET", "/_matrix/client/unknown", 404),
        ("GET", "/unknown", 404),
        ("DELETE", "/_matrix/client/versions", 405),
        ("PATCH", "/_matrix/client/versions", 405),
        ("GET", "/_matrix/client/v3/rooms/%ff/state/x/", 400),
        ("GET", "/_matrix/client/v3/slow", 401),
        ("GET", "/_matrix/client/v3/fail/bug", 500),
        ("GET", "/_matrix/client/v3/respond/redirect", 302),
        ("GET", "/_matrix/client/v3/respond/empty", 204),
    ],
)
async def test_every_response_may_be_read_by_web_pages(site: Web, method: str, target: str, status: int) -> None:
    reply = await site.call(method, target)
    assert reply.status == status
    assert {name: reply.headers[name] for name in CORS} == CORS
    if status >= 400:
        assert reply.json["errcode"].startswith("M_")
        assert reply.json["error"]


async def test_options_do_nothing(site: Web, witness: Witness) -> None:
    reply = await site.call("OPTIONS", SEND, token="alice", body={})
    assert (reply.status, reply.body, witness.requests) == (204, b"", [])


async def test_unknown_paths_and_methods(site: Web) -> None:
    for target in ("/_matrix/client/unknown", "/_matrix/", "/_synapse/x", "/", "/x", "/_matrix/client/versions/"):
        reply = await site.call("GET", target)
        assert (reply.status, reply.json["errcode"]) == (404, "M_UNRECOGNIZED")
    reply = await site.call("POST", SEND, token="alice")
    assert (reply.status, reply.json["errcode"]) == (405, "M_UNRECOGNIZED")
    assert reply.headers["allow"] == "PUT"


async def test_head_has_the_headers_of_get(site: Web) -> None:
    head = await site.call("HEAD", "/_matrix/client/versions")
    get = await site.call("GET", "/_matrix/client/versions")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


async def test_parameters_of_path_and_query(site: Web, witness: Witness) -> None:
    target = "/_matrix/client/v3/rooms/%21a%2Fb%3Ac/state/m.room.x/%E2%82%AC?a=1&a=2&b=x+y%26&access_token=alice"
    reply = await site.call("GET", target)
    assert reply.json["path"] == {"room_id": "!a/b:c", "event_type": "m.room.x", "state_key": "€"}
    assert reply.json["query"] == {"a": ["1", "2"], "b": ["x y&"]}
    assert witness.last.access_token == "alice"
    assert witness.last.uri == ""


async def test_a_path_in_absolute_form_is_understood(site: Web) -> None:
    assert (await site.call("GET", "http://test/_matrix/client/versions")).status == 200


@pytest.mark.parametrize("target", ["/_matrix/client/v3/rooms/%ff/state/x/", "/_matrix/client/versions?a=%ff"])
async def test_wrong_encodings_are_the_clients_fault(site: Web, target: str) -> None:
    reply = await site.call("GET", target, token="alice")
    assert (reply.status, reply.json["errcode"]) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_json_is_read_whatever_it_is_called(site: Web, witness: Witness, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    reply = await site.call("PUT", SEND, token="alice", body={"body": "é"}, headers=headers)
    assert reply.json == {"event_id": "$t1"}
    assert witness.last.body == {"body": "é"}


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        (b"", "M_NOT_JSON"),
        (b"{", "M_NOT_JSON"),
        (b'{"a":"\xff"}', "M_NOT_JSON"),
        (b"[]", "M_BAD_JSON"),
        (b"1", "M_BAD_JSON"),
    ],
)
async def test_wrong_bodies(site: Web, witness: Witness, body: bytes, errcode: str) -> None:
    reply = await site.call("PUT", SEND, token="alice", body=body)
    assert (reply.status, reply.json["errcode"]) == (400, errcode)
    assert witness.requests == []


async def test_missing_members(site: Web) -> None:
    reply = await site.call("POST", "/_matrix/client/v3/login", body={})
    assert (reply.status, reply.json["errcode"]) == (400, "M_MISSING_PARAM")


async def test_bodies_that_may_be_left_out(site: Web) -> None:
    assert (await site.call("POST", "/_matrix/client/v3/optional_body", token="alice")).json == {"body": {}}
    assert (await site.call("POST", "/_matrix/client/v3/optional_body", token="alice", body=b"{")).status == 400
    reply = await site.call("POST", "/_matrix/client/v3/no_body", token="alice", body=b"nonsense")
    assert reply.json == {"body": {}, "size": 8}


async def test_a_body_that_is_too_large(site: Web, witness: Witness) -> None:
    body = {"body": "x" * 65536}
    reply = await site.call("PUT", SEND, token="alice", body=body)
    assert (reply.status, reply.json["errcode"]) == (413, "M_TOO_LARGE")
    assert witness.requests == []


async def test_no_body_is_read_for_who_may_not_call(site: Web) -> None:
    """The receiving function would wait for ever for the rest of this body."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "PUT",
        "path": SEND,
        "raw_path": SEND.encode(),
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer wrong")],
        "client": None,
    }
    reply = await asgi_call(site.app, scope, b"")
    assert reply.status == 401


@pytest.mark.parametrize(
    ("access", "token", "outcome"),
    [
        ("optional", None, None),
        ("optional", "alice", "@alice:test"),
        ("optional", "guest", "@guest:test"),
        ("optional", "wrong", "M_UNKNOWN_TOKEN"),
        ("user", None, "M_MISSING_TOKEN"),
        ("user", "wrong", "M_UNKNOWN_TOKEN"),
        ("user", "alice", "@alice:test"),
        ("user", "guest", "M_GUEST_ACCESS_FORBIDDEN"),
        ("user", "suspended", "@suspended:test"),
        ("user", "locked", "M_USER_LOCKED"),
        ("guest", None, "M_MISSING_TOKEN"),
        ("guest", "guest", "@guest:test"),
        ("guest", "alice", "@alice:test"),
        ("admin", "alice", "M_FORBIDDEN"),
        ("admin", "guest", "M_GUEST_ACCESS_FORBIDDEN"),
        ("admin", "admin", "@admin:test"),
        ("appservice", "alice", "M_FORBIDDEN"),
        ("appservice", "admin", "M_FORBIDDEN"),
        ("appservice", "bridge", "@bridge:test"),
    ],
)
async def test_who_may_call(site: Web, access: str, token: str | None, outcome: str | None) -> None:
    reply = await site.call("GET", f"/_matrix/client/v3/access/{access}", token=token)
    assert reply.json.get("user_id", reply.json.get("errcode")) == outcome
    assert reply.status == {"M_F": 403, "M_G": 403}.get((outcome or "")[:3], 401 if "M_" in (outcome or "") else 200)


async def test_suspended_and_locked_accounts(site: Web) -> None:
    reply = await site.call("PUT", SEND, token="suspended", body={})
    assert (reply.status, reply.json["errcode"]) == (403, "M_USER_SUSPENDED")
    assert (await site.call("POST", "/_matrix/client/v3/logout", token="locked")).status == 200


async def test_public_endpoints_do_not_look_at_tokens(site: Web) -> None:
    assert (await site.call("GET", "/_matrix/client/versions", token="wrong")).status == 200
    assert site.accounts.asked == 0


@pytest.mark.parametrize("authorization", ["Basic YTpi", "Bearer", "Bearer ", "bearer alice", "Bearer  alice "])
async def test_where_the_token_stands(site: Web, authorization: str) -> None:
    reply = await site.call("GET", "/_matrix/client/v3/access/user", headers={"authorization": authorization})
    assert (reply.status == 200) == ("alice" in authorization)


async def test_the_header_goes_before_the_query(site: Web) -> None:
    assert (await site.call("GET", "/_matrix/client/v3/access/user?access_token=bob", token="alice")).json == {
        "user_id": "@alice:test"
    }


async def test_requests_of_other_servers(site: Web, witness: Witness) -> None:
    target = "/_matrix/federation/v1/send/1%2F2?a=%20b&access_token=x"
    signed = {"authorization": "X-Matrix origin=other.test"}
    reply = await site.call("PUT", target, body={"pdus": []}, headers=signed)
    assert reply.json == {"origin": "other.test"}
    assert (witness.last.uri, witness.last.method, witness.last.raw_body) == (target, "PUT", b'{"pdus":[]}')
    assert (witness.last.access_token, witness.last.caller) == (None, None)
    refused = await site.call("PUT", target, body={"pdus": []}, token="admin")
    assert (refused.status, refused.json["errcode"]) == (401, "M_UNAUTHORIZED")


async def test_too_many_requests(witness: Witness) -> None:
    clock = ManualClock()
    rates = {RateLimit.MESSAGE: Rate(per_second=0.3, burst=2)}
    async with web(echo_section(witness), rates=rates, clock=clock) as site:
        statuses = [(await site.call("PUT", SEND, token="alice", body={})).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        reply = await site.call("PUT", SEND, token="alice", body=b"not even read")
        assert reply.json == {"errcode": "M_LIMIT_EXCEEDED", "error": "Too many requests", "retry_after_ms": 3334}
        assert reply.headers["retry-after"] == "4"
        assert (await site.call("PUT", SEND, token="bob", body={})).status == 200
        clock.advance(3.334)
        assert (await site.call("PUT", SEND, token="alice", body={})).status == 200


async def test_public_endpoints_are_limited_by_address(site: Web) -> None:
    async def login(peer: str, forwarded_for: str) -> int:
        headers = {"x-forwarded-for": forwarded_for}
        body = {"type": "m.login.password"}
        return (await site.call("POST", "/_matrix/client/v3/login", body=body, headers=headers, peer=peer)).status

    assert await login("192.0.2.1", "203.0.113.1") == 200
    assert await login("192.0.2.1", "203.0.113.2") == 429, "anybody can write a header"
    assert await login("10.0.0.1", "203.0.113.1") == 200
    assert await login("10.0.0.1", "203.0.113.1") == 429
    assert await login("10.0.0.1", "203.0.113.2") == 200


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_errors_of_endpoints(site: Web, method: str) -> None:
    reply = await site.call(method, "/_matrix/client/v3/fail/not_found")
    assert (reply.status, reply.json) == (404, {"errcode": "M_NOT_FOUND", "error": "No such thing"})
    reply = await site.call(method, "/_matrix/client/v3/fail/away")
    assert (reply.status, reply.json["errcode"]) == (503, "M_UNKNOWN")
    assert "retry-after" in reply.headers
    with structlog.testing.capture_logs() as lines:
        reply = await site.call(method, "/_matrix/client/v3/fail/bug")
    assert (reply.status, reply.json) == (500, {"errcode": "M_UNKNOWN", "error": "Internal server error"})
    assert [isinstance(line["exc_info"], KeyError) for line in lines if line["log_level"] == "error"] == [True]


@pytest.mark.parametrize("name", ["circle", "number", "header"])
async def test_responses_that_cannot_be_sent(site: Web, name: str) -> None:
    with structlog.testing.capture_logs() as lines:
        reply = await site.call("GET", f"/_matrix/client/v3/respond/{name}")
    assert (reply.status, reply.json["errcode"]) == (500, "M_UNKNOWN")
    assert "location" not in reply.headers
    assert any(line["log_level"] == "error" for line in lines)


async def test_unusual_responses(site: Web) -> None:
    async def respond(name: str) -> Any:
        return await site.call("GET", f"/_matrix/client/v3/respond/{name}")

    assert (await respond("id_keys")).json == {"@a:b": "@c:d"}
    assert (await respond("spliced")).json == {"a": {"b": 1}}
    page = await respond("page")
    assert (page.body, page.headers["content-type"]) == (b"<p>", "text/html; charset=utf-8")
    empty = await respond("empty")
    assert (empty.body, "content-length" in empty.headers, "content-type" in empty.headers) == (b"", False, False)
    redirect = await respond("redirect")
    assert (redirect.headers["location"], redirect.headers["cache-control"]) == ("https://example.org/", "max-age=5")


async def test_request_ids(site: Web) -> None:
    async def answered(proposed: str) -> str:
        reply = await site.call("GET", "/_matrix/client/versions", headers={"x-request-id": proposed})
        return reply.headers["x-request-id"]

    assert await answered("abc-123") == "abc-123"
    for wrong in ("", "x" * 65, "a b", "a\x00"):
        assert await answered(wrong) not in ("", wrong)
    assert await answered("") != await answered("")


async def test_each_request_is_told_of_once_and_without_secrets(site: Web) -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        await site.call("PUT", SEND + "?access_token=alice", body={"body": "hunter2"}, headers={"x-request-id": "r1"})
        await site.call("GET", "/_matrix/client/nowhere?access_token=alice", token="alice")
    sent, unknown = lines
    assert sent.pop("duration_ms") == 0.0
    assert sent == {
        "event": "request",
        "log_level": "info",
        "request_id": "r1",
        "operation": "send_message",
        "transport": "http",
        "method": "PUT",
        "status": 200,
        "requester": "@alice:test",
        "origin": None,
        "ip": "192.0.2.1",
        "bytes": 18,
    }
    assert (unknown["operation"], unknown["status"]) == ("unrecognized", 404)
    assert "hunter2" not in repr(lines)
    assert "alice'" not in repr(lines)


async def test_metrics(site: Web) -> None:
    def count(status: int) -> float:
        labels = {"operation": "send_message", "transport": "http", "status": str(status)}
        return REGISTRY.get_sample_value("heliograph_requests_total", labels) or 0

    def seconds() -> float:
        return REGISTRY.get_sample_value("heliograph_request_seconds_count", {"operation": "send_message"}) or 0

    before = count(200), count(401), seconds()
    await site.call("PUT", SEND, token="alice", body={})
    await site.call("PUT", SEND, token="wrong", body={})
    assert (count(200), count(401), seconds()) == (before[0] + 1, before[1] + 1, before[2] + 2)
    assert REGISTRY.get_sample_value("heliograph_requests_in_flight") == 0


async def test_streams(site: Web, witness: Witness) -> None:
    upload = {"content-type": "image/png"}
    reply = await site.call("POST", "/_matrix/media/v3/upload", token="alice", body=b"x" * 5000, headers=upload)
    assert reply.json == {"size": 5000, "content_type": "image/png"}
    reply = await site.call("POST", "/_matrix/media/v3/upload", token="alice", body=b"x" * 1_000_001)
    assert (reply.status, reply.json["errcode"]) == (413, "M_TOO_LARGE")
    reply = await site.call("GET", "/_matrix/client/v1/media/download/300", token="alice")
    assert (len(reply.body), reply.headers["content-type"]) == (300_000, "image/png")
    assert "content-length" not in reply.headers
    reply = await site.call("GET", "/_matrix/client/v3/large", token="alice")
    assert len(reply.json["a"]) == 3_000_000


async def test_head_of_a_stream(site: Web) -> None:
    reply = await site.call("HEAD", "/_matrix/client/v1/media/download/300", token="alice")
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, b"", "image/png")


class Leaving:
    """A client that goes away when it is told to."""

    def __init__(self, site: Web, method: str, target: str) -> None:
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        self.sent: list[dict[str, Any]] = []
        scope = {
            "type": "http",
            "method": method,
            "path": target,
            "raw_path": target.encode(),
            "query_string": b"",
            "headers": [(b"authorization", b"Bearer alice")],
            "client": None,
        }
        self.request = site.app(scope, self._messages.get, self._send)  # type: ignore[arg-type]

    def leave(self) -> None:
        """Goes away."""
        self._messages.put_nowait({"type": "http.disconnect"})

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


async def test_a_read_ends_with_its_client(site: Web, witness: Witness) -> None:
    client = Leaving(site, "GET", "/_matrix/client/v3/slow")
    with structlog.testing.capture_logs() as lines:
        async with asyncio.TaskGroup() as group:
            group.create_task(client.request)
            await witness.started.wait()
            client.leave()
            await witness.cancelled.wait()
    assert client.sent == []
    assert [line["status"] for line in lines] == [499]


async def test_a_write_goes_on_without_its_client(site: Web, witness: Witness) -> None:
    client = Leaving(site, "PUT", "/_matrix/client/v3/slow")
    async with asyncio.TaskGroup() as group:
        group.create_task(client.request)
        await witness.started.wait()
        client.leave()
        witness.go_on.set()
        await witness.finished.wait()
    assert not witness.cancelled.is_set()


async def test_a_write_goes_on_if_its_connection_is_cancelled(site: Web, witness: Witness) -> None:
    client = Leaving(site, "PUT", "/_matrix/client/v3/slow")
    async with asyncio.TaskGroup() as group:
        connection = group.create_task(client.request)
        await witness.started.wait()
        connection.cancel()
    witness.go_on.set()
    await witness.finished.wait()


async def test_quart_serves_what_else_there_is(witness: Witness) -> None:
    pages = Blueprint("pages", "pages")

    @pages.get("/hello/<name>")
    async def hello(name: str) -> str:
        return f"Hello {name}"

    async with web(echo_section(witness)) as site:
        site.app.register_blueprint(pages)
        async with site.app.test_app() as running:
            client = running.test_client()
            page = await client.get("/hello/you")
            assert (await page.get_data(as_text=True), page.headers["Access-Control-Allow-Origin"]) == (
                "Hello you",
                "*",
            )
            wrong = await client.post("/hello/you")
            assert (wrong.status_code, (await wrong.get_json())["errcode"]) == (405, "M_UNRECOGNIZED")
            unknown = await client.get("/nowhere")
            assert (unknown.status_code, (await unknown.get_json())["errcode"]) == (404, "M_UNRECOGNIZED")
            versions = await client.get("/_matrix/client/versions")
            assert await versions.get_json() == {"versions": ["v1.19"]}
            sent = await client.put(SEND, json={"body": "x"}, headers={"Authorization": "Bearer alice"})
            assert await sent.get_json() == {"event_id": "$t1"}


async def test_sections_that_contradict_themselves() -> None:
    async def function(request: Request) -> Response:
        return EMPTY

    twice = Section("Twice")
    for path in ("/a", "/b"):
        twice.endpoint("GET", path, operation="same")(function)
    with pytest.raises(ValueError, match="same"):
        prepare([twice])
    apart = Section("Servers may use the name too")
    apart.endpoint("GET", "/c", operation="same", access=Access.SERVER)(function)
    assert len(prepare([apart, apart])) == 2
    streamed = Section("Streamed")
    streamed.endpoint("POST", "/d", operation="d", body={}, body_streamed=True)(function)
    with pytest.raises(ValueError, match="streamed"):
        prepare([streamed])
