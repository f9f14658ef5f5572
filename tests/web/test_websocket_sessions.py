"""Who a WebSocket belongs to, how long it lives, and how it ends."""

from collections.abc import AsyncIterator

import orjson
import pytest
import structlog
from prometheus_client import REGISTRY
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from homeserver.web.endpoint import Request
from homeserver.web.websocket import WEBSOCKET_PATH
from homeserver.web.websocket_socket import CloseCode, WebSocketSettings
from tests.web.example_sections import Witness
from tests.web.harness import Accounts, raw_exchange
from tests.web.websocket_site import Site, eventually, opened


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """All example endpoints behind a server, with the usual limits."""
    async with opened() as ready:
        yield ready


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
    assert raised.value.response.status_code == 403
    port = int(site.url.split(":")[2].partition("/")[0])
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    for target in (b"?", b"http://[x", b"/elsewhere"):
        received = await raw_exchange(port, b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n" + upgrade + b"\r\n")
        assert received.split(b" ")[1] in (b"403", b"404")


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


async def test_a_client_that_does_not_read_is_left() -> None:
    async with opened(WebSocketSettings(send_seconds=0.3)) as site, site.client(compression=None) as client:
        client.connection.transport.pause_reading()
        for number in range(16):
            await client.tell({"id": number, "operation": "large"})
        await eventually(lambda: REGISTRY.get_sample_value("heliograph_websockets") == 0)
        client.connection.transport.abort()
