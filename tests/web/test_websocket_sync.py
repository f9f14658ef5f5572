"""Syncs pushed over a WebSocket."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from examples.websocket_client import MatrixSocket, RequestFailed
from homeserver.core.errors import InvalidParam, LimitExceeded
from homeserver.web.endpoint import Response
from homeserver.web.websocket import WEBSOCKET_PATH
from homeserver.web.websocket_socket import CloseCode, WebSocketSettings
from tests.web.harness import served, web
from tests.web.websocket_site import SEND_PATH, Client, Site, eventually, opened


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """All example endpoints behind a server, with the usual limits."""
    async with opened() as ready:
        yield ready


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
        await client.tell({"id": "s", "operation": "subscribe_sync", "window": 3})
        for name in ("a", "b", "c", "d", "e"):
            await site.syncs.answers.put(name)
        assert [(await client.hear())["sync"]["next_batch"] for _ in range(3)] == ["a", "b", "c"]
        assert (await client.ask("get_versions"))["status"] == 200
        assert len(site.syncs.asked) == 3
        await client.tell({"id": "s", "ack": "b"})
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


async def test_without_a_sync_there_is_nothing_to_subscribe_to() -> None:
    async with web() as bare, served(bare.app) as port:
        async with connect(f"ws://127.0.0.1:{port}{WEBSOCKET_PATH}?access_token=alice") as connection:
            answer = await Client(connection).ask("subscribe_sync")
            assert (answer["status"], answer["body"]["errcode"]) == (404, "M_UNRECOGNIZED")


async def test_the_example_client(site: Site) -> None:
    async with connect(site.url) as connection, asyncio.TaskGroup() as tasks:
        socket = MatrixSocket(connection)
        running = tasks.create_task(socket.run())
        with pytest.raises(RequestFailed, match="M_MISSING_TOKEN"):
            await socket.call("for_user")
        session = await socket.call("login", body={"type": "m.login.password"})
        await socket.call("authenticate", access_token=session["access_token"])
        assert await socket.call("send_message", path=SEND_PATH, body={}) == {"event_id": "$t1"}
        seen = []
        await site.syncs.answers.put("s1")
        async for sync in socket.syncs(set_presence="online"):
            seen.append(sync["next_batch"])
            if len(seen) == 2:
                break
            await site.syncs.answers.put("s2")
        assert seen == ["s1", "s2"]
        assert site.syncs.asked[1]["since"] == ["s1"]
        running.cancel()
