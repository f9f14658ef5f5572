"""WebSockets behind a real Hypercorn, spoken to by a real client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import structlog
from prometheus_client import REGISTRY
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from homeserver.core.errors import InvalidParam, LimitExceeded
from homeserver.web.dispatch import prepare
from homeserver.web.endpoint import EMPTY, RateLimit, Request, Response, Section
from homeserver.web.rate_limits import Rate
from homeserver.web.websocket import WEBSOCKET_PATH
from homeserver.web.websocket_calls import CallResolver
from homeserver.web.websocket_socket import CloseCode, WebSocketSettings
from tests.web.example_sections import Witness, access_section, echo_section, failing_section, slow_section
from tests.web.harness import Accounts, ManualClock, Web, served, web


class Client:
    """A client at its socket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._ids = 0

    async def tell(self, frame: Any) -> None:
        """Sends a frame: text, bytes, or a value as JSON."""
        await self.connection.send(frame if isinstance(frame, str | bytes) else orjson.dumps(frame).decode())

    async def hear(self) -> Any:
        """Receives a frame."""
        async with asyncio.timeout(10):
            return orjson.loads(await self.connection.recv())

    async def ask(self, operation: str, **members: Any) -> Any:
        """Sends a request and receives its answer, which must be the next frame."""
        self._ids += 1
        await self.tell({"id": self._ids, "operation": operation, **members})
        answer = await self.hear()
        assert answer.pop("id") == self._ids
        return answer

    async def closed(self) -> int:
        """Waits until the server closes, and says with which code."""
        async with asyncio.timeout(10):
            try:
                while True:
                    await self.connection.recv()
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else 1006


@dataclass
class Syncs:
    """A `sync` whose answers a test decides."""

    answers: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    asked: list[dict[str, list[str]]] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def section(self) -> Section:
        """The endpoint."""
        s = Section("Sync")

        @s.endpoint("GET", "/_matrix/client/v3/sync")
        async def sync(request: Request) -> Response:
            """Answers as the test says."""
            self.asked.append({name: list(values) for name, values in request.query.items()})
            try:
                answer = await self.answers.get()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, Response) else Response({"next_batch": answer})

        return s


@dataclass
class Site:
    """Everything a test needs."""

    web: Web
    url: str
    clock: ManualClock
    witness: Witness
    syncs: Syncs

    @property
    def accounts(self) -> Accounts:
        """Who has which token."""
        return self.web.accounts

    @asynccontextmanager
    async def client(self, token: str | None = "alice", *, query: str = "") -> AsyncIterator[Client]:
        """Opens a socket."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with connect(self.url + query, additional_headers=headers) as connection:
            yield Client(connection)


@asynccontextmanager
async def opened(settings: WebSocketSettings | None = None) -> AsyncIterator[Site]:
    """All example endpoints behind a server."""
    witness, syncs, clock = Witness(), Syncs(), ManualClock()
    sections = (
        echo_section(witness),
        access_section(witness),
        failing_section(),
        slow_section(witness),
        syncs.section(),
    )
    rates = {RateLimit.MESSAGE: Rate(per_second=1, burst=2)}
    async with web(*sections, clock=clock, rates=rates, websocket=settings) as site, served(site.app) as port:
        yield Site(site, f"ws://127.0.0.1:{port}{WEBSOCKET_PATH}", clock, witness, syncs)
        witness.go_on.set()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """All example endpoints behind a server, with the usual limits."""
    async with opened() as ready:
        yield ready


SEND_PATH = {"room_id": "!a/b:c", "event_type": "m.room.message", "txn_id": "t1"}


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


@pytest.mark.parametrize(("token", "query"), [("alice", ""), (None, "?access_token=alice")])
async def test_tokens_in_the_handshake(site: Site, token: str | None, query: str) -> None:
    async with site.client(token, query=query) as client:
        assert (await client.ask("for_user"))["body"] == {"user_id": "@alice:test"}


@pytest.mark.parametrize(
    ("token", "status", "errcode"), [("wrong", 401, "M_UNKNOWN_TOKEN"), ("locked", 401, "M_USER_LOCKED")]
)
async def test_wrong_tokens_in_the_handshake(site: Site, token: str, status: int, errcode: str) -> None:
    with pytest.raises(InvalidStatus) as raised:
        async with site.client(token):
            pass
    response = raised.value.response
    assert (response.status_code, orjson.loads(response.body)["errcode"]) == (status, errcode)
    assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_browsers_show_their_token_in_a_frame(site: Site) -> None:
    async with site.client(None) as client:
        missing = await client.ask("for_user")
        assert (missing["status"], missing["body"]["errcode"]) == (401, "M_MISSING_TOKEN")
        assert (await client.ask("login", body={"type": "m.login.password"}))["status"] == 200
        wrong = await client.ask("authenticate", access_token="wrong")
        assert (wrong["status"], wrong["body"]["errcode"]) == (401, "M_UNKNOWN_TOKEN")
        right = await client.ask("authenticate", access_token="alice")
        assert right == {"status": 200, "body": {"user_id": "@alice:test", "device_id": "ALICE"}}
        assert (await client.ask("for_user"))["body"] == {"user_id": "@alice:test"}
        site.accounts.sessions["refreshed"] = site.accounts.sessions.pop("alice")
        assert (await client.ask("authenticate", access_token="refreshed"))["status"] == 200
        other = await client.ask("authenticate", access_token="bob")
        assert (other["status"], other["body"]["errcode"]) == (403, "M_FORBIDDEN")
        assert (await client.ask("for_user"))["body"] == {"user_id": "@alice:test"}


async def test_guests_and_appservices(site: Site) -> None:
    async with site.client("guest") as client:
        assert (await client.ask("for_user"))["body"]["errcode"] == "M_GUEST_ACCESS_FORBIDDEN"
        assert (await client.ask("for_guest"))["status"] == 200
    async with site.client("bridge") as client:
        assert (await client.ask("for_appservice"))["status"] == 200


async def test_plain_http_is_told_to_upgrade(site: Site) -> None:
    assert (await site.web.call("GET", WEBSOCKET_PATH, token="alice")).status == 426
    assert (await site.web.call("GET", WEBSOCKET_PATH)).status == 401


async def test_other_paths_have_no_websocket(site: Site) -> None:
    with pytest.raises(InvalidStatus) as raised:
        async with connect(site.url + "x"):
            pass
    assert raised.value.response.status_code in (403, 404)


async def test_malformed_frames_are_complained_of(site: Site) -> None:
    async with site.client() as client:
        for frame, errcode in ((b"\0", "M_BAD_JSON"), ("{", "M_NOT_JSON"), ({"id": "a"}, "M_MISSING_PARAM")):
            await client.tell(frame)
            complaint = await client.hear()
            assert complaint["error"]["errcode"] == errcode
        assert complaint["id"] == "a"
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


async def test_logging_out_ends_the_socket(site: Site) -> None:
    async with site.client() as client, site.client() as other:
        assert (await other.ask("for_user"))["status"] == 200
        del site.accounts.sessions["alice"]
        await client.tell({"id": 1, "operation": "logout"})
        assert (await client.hear())["status"] == 401
        assert await client.closed() == CloseCode.SESSION_ENDED
        await eventually(lambda: site.clock.sleepers == 1)
        site.clock.advance(16)
        assert await other.closed() == CloseCode.SESSION_ENDED


async def test_the_answer_to_logging_out_still_comes(site: Site) -> None:
    class LoggingOut(Witness):
        def saw(self, request: Request) -> None:
            del site.accounts.sessions["alice"]

    site.witness.__class__ = LoggingOut
    async with site.client() as client:
        assert await client.ask("logout") == {"status": 200, "body": {}}
        assert await client.closed() == CloseCode.SESSION_ENDED


async def eventually(condition: Any) -> None:
    """Waits until a condition holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_silent_clients_are_pinged_and_then_left(site: Site) -> None:
    async with site.client() as client:
        await eventually(lambda: site.clock.sleepers == 1)
        site.clock.advance(61)
        assert "ping" in await client.hear()
        await client.tell({"pong": 1})
        assert (await client.ask("get_versions"))["status"] == 200
        await eventually(lambda: site.clock.sleepers == 1)
        site.clock.advance(119)
        assert "ping" in await client.hear()
        await eventually(lambda: site.clock.sleepers == 1)
        site.clock.advance(15)
        assert await client.closed() == CloseCode.NO_SIGN_OF_LIFE


async def test_clients_may_ping(site: Site) -> None:
    async with site.client() as client:
        await client.tell({"ping": {"a": 1}})
        assert await client.hear() == {"pong": {"a": 1}}


async def test_who_never_authenticates_is_left(site: Site) -> None:
    async with site.client(None) as client:
        await eventually(lambda: site.clock.sleepers == 1)
        for _ in range(5):
            assert (await client.ask("get_versions"))["status"] == 200
            await eventually(lambda: site.clock.sleepers == 1)
            site.clock.advance(15)
        assert await client.closed() == CloseCode.NO_SIGN_OF_LIFE


async def test_sockets_are_counted() -> None:
    async with opened(WebSocketSettings(sockets_max=3, sockets_per_user_max=1)) as site:
        async with site.client("alice"), site.client(None) as browser:
            with pytest.raises(InvalidStatus) as raised:
                async with site.client("alice"):
                    pass
            assert raised.value.response.status_code == 429
            assert (await browser.ask("authenticate", access_token="alice"))["status"] == 429
            assert (await browser.ask("authenticate", access_token="bob"))["status"] == 200
            async with site.client("admin"):
                with pytest.raises(InvalidStatus) as raised:
                    async with site.client("guest"):
                        pass
                assert raised.value.response.status_code == 503
        await eventually(lambda: REGISTRY.get_sample_value("heliograph_websockets") == 0)
        async with site.client("alice") as client:
            assert (await client.ask("get_versions"))["status"] == 200


async def test_stopping_ends_all_sockets(site: Site) -> None:
    async with site.client() as client:
        await client.tell({"id": 1, "operation": "subscribe_sync"})
        await eventually(lambda: site.syncs.asked)
        site.web.sockets.stop()
        assert await client.closed() == CloseCode.GOING_AWAY
    with pytest.raises(InvalidStatus) as raised:
        async with site.client():
            pass
    assert raised.value.response.status_code == 503


async def test_a_bug_in_one_socket_is_nobody_elses(site: Site) -> None:
    async with site.client("alice") as client, site.client("bob") as other:
        with structlog.testing.capture_logs() as lines:
            del site.accounts.sessions
            site.clock.advance(16)
            assert await client.closed() == CloseCode.INTERNAL_ERROR
        site.accounts.sessions = Accounts().sessions
        assert any(line["event"] == "a websocket failed" for line in lines)
        assert await other.closed() == CloseCode.INTERNAL_ERROR
    async with site.client("bob") as client:
        assert (await client.ask("for_user"))["status"] == 200


async def test_each_request_is_told_of(site: Site) -> None:
    async with site.client() as client:
        with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            await client.ask("get_versions")
            await client.ask("for_user")
    first, second = (line for line in lines if line["event"] == "request")
    assert (first["operation"], first["transport"], first["status"]) == ("get_versions", "websocket", 200)
    assert (second["operation"], second["requester"]) == ("for_user", "@alice:test")
    assert first["request_id"] != second["request_id"]


async def test_syncs_are_pushed_one_after_the_other(site: Site) -> None:
    async with site.client() as client:
        query = {"filter": "f", "full_state": True, "set_presence": "offline"}
        await client.tell({"id": "s", "operation": "subscribe_sync", "query": query})
        await site.syncs.answers.put("s1")
        assert await client.hear() == {"id": "s", "sync": {"next_batch": "s1"}}
        assert (await client.ask("get_versions"))["status"] == 200
        assert len(site.syncs.asked) == 1, "the next sync must not begin before this one is acknowledged"
        await client.tell({"id": "s", "ack": "s1"})
        await site.syncs.answers.put(Response(b'{"next_batch":"s2"}', headers={"Content-Type": "application/json"}))
        assert (await client.hear())["sync"]["next_batch"] == "s2"
        await client.tell({"ack": "s2"})
        await eventually(lambda: len(site.syncs.asked) == 3)
    assert site.syncs.asked[0] == {
        "timeout": ["30000"],
        "filter": ["f"],
        "full_state": ["true"],
        "set_presence": ["offline"],
    }
    assert site.syncs.asked[1] == {
        "timeout": ["30000"],
        "filter": ["f"],
        "set_presence": ["offline"],
        "since": ["s1"],
    }
    assert site.syncs.asked[2]["since"] == ["s2"]
    await site.syncs.cancelled.wait()


async def test_syncs_resume_where_the_client_says(site: Site) -> None:
    async with site.client() as client:
        await client.tell({"id": 1, "operation": "subscribe_sync", "query": {"since": "s7", "timeout": 5}})
        await eventually(lambda: site.syncs.asked)
    assert site.syncs.asked == [{"since": ["s7"], "timeout": ["5"]}]


async def test_a_window_lets_several_syncs_be_on_their_way(site: Site) -> None:
    async with site.client() as client:
        await client.tell({"id": 1, "operation": "subscribe_sync", "window": 3})
        for name in ("a", "b", "c", "d", "e"):
            await site.syncs.answers.put(name)
        assert [(await client.hear())["sync"]["next_batch"] for _ in range(3)] == ["a", "b", "c"]
        assert (await client.ask("get_versions"))["status"] == 200
        assert len(site.syncs.asked) == 3
        await client.tell({"id": 1, "ack": "b"})
        assert [(await client.hear())["sync"]["next_batch"] for _ in range(2)] == ["d", "e"]
        assert len(site.syncs.asked) == 5


async def test_unsubscribing(site: Site) -> None:
    async with site.client() as client:
        await client.tell({"id": "s", "operation": "subscribe_sync"})
        await eventually(lambda: site.syncs.asked)
        await client.tell({"id": "s", "operation": "unsubscribe"})
        assert await client.hear() == {"id": "s", "status": 200, "body": {}}
        await site.syncs.cancelled.wait()
        for frame in ({"id": "s", "operation": "unsubscribe"}, {"id": "s", "ack": "x"}, {"ack": "x"}):
            await client.tell(frame)
            assert (await client.hear())["error"]["errcode"] == "M_INVALID_PARAM"
        await client.tell({"id": "s", "operation": "subscribe_sync"})
        await site.syncs.answers.put("s1")
        assert (await client.hear())["sync"] == {"next_batch": "s1"}
        await client.tell({"id": "s", "operation": "unsubscribe"})
        assert await client.hear() == {"id": "s", "status": 200, "body": {}}, "also while it waits to be acknowledged"


async def test_subscriptions_end_with_the_error_of_a_sync(site: Site) -> None:
    async with site.client() as client:
        await client.tell({"id": "s", "operation": "subscribe_sync", "query": {"since": "?"}})
        await site.syncs.answers.put(InvalidParam("Wrong since"))
        answer = await client.hear()
        assert (answer["id"], answer["status"], answer["body"]["errcode"]) == ("s", 400, "M_INVALID_PARAM")
    async with site.client(None) as client:
        assert (await client.ask("subscribe_sync"))["status"] == 401
        assert (await client.ask("get_versions"))["status"] == 200


async def test_subscriptions_wait_where_a_sync_says_so(site: Site) -> None:
    async with site.client() as client:
        await client.tell({"id": "s", "operation": "subscribe_sync"})
        await site.syncs.answers.put(LimitExceeded(retry_after_ms=2500))
        await eventually(lambda: site.clock.sleepers == 2)
        assert len(site.syncs.asked) == 1
        site.clock.advance(2.5)
        await site.syncs.answers.put("s1")
        assert (await client.hear())["sync"] == {"next_batch": "s1"}


async def test_nothing_is_pushed_to_who_has_logged_out(site: Site) -> None:
    async with site.client() as client:
        await client.tell({"id": "s", "operation": "subscribe_sync"})
        await eventually(lambda: site.syncs.asked)
        del site.accounts.sessions["alice"]
        await site.syncs.answers.put("s1")
        with pytest.raises(ConnectionClosed) as raised:
            await client.hear()
        assert raised.value.rcvd is not None
        assert raised.value.rcvd.code == CloseCode.SESSION_ENDED


async def test_so_many_subscriptions_and_no_more() -> None:
    async with opened(WebSocketSettings(subscriptions_max=2)) as site, site.client() as client:
        for number in ("a", "b"):
            await client.tell({"id": number, "operation": "subscribe_sync"})
        assert (await client.ask("subscribe_sync"))["status"] == 429
        await client.tell({"id": "a", "operation": "subscribe_sync"})
        assert (await client.hear())["error"]["errcode"] == "M_INVALID_PARAM"


async def test_a_client_that_does_not_read_is_left() -> None:
    async with opened(WebSocketSettings(send_seconds=0.3)) as site, site.client() as client:
        client.connection.transport.pause_reading()
        for number in range(16):
            await client.tell({"id": number, "operation": "large"})
        await eventually(lambda: REGISTRY.get_sample_value("heliograph_websockets") == 0)


async def test_without_a_sync_there_is_nothing_to_subscribe_to() -> None:
    async with web() as bare, served(bare.app) as port:
        async with connect(f"ws://127.0.0.1:{port}{WEBSOCKET_PATH}?access_token=alice") as connection:
            answer = await Client(connection).ask("subscribe_sync")
            assert (answer["status"], answer["body"]["errcode"]) == (404, "M_UNRECOGNIZED")


def test_the_transports_own_operations_are_taken() -> None:
    section = Section("Taken")

    @section.endpoint("GET", "/x")
    async def authenticate(request: Request) -> Response:
        return EMPTY

    with pytest.raises(ValueError, match="authenticate"):
        CallResolver(prepare([section]))
