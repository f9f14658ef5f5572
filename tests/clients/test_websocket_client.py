"""The example of a WebSocket client takes part in a conversation with matrix-nio's client over HTTP."""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from nio import AsyncClient, JoinResponse, RoomCreateResponse, RoomMessageText
from websockets.asyncio.client import connect

from tests.clients.nio_clients import PASSWORD, good, heard_messages, received, synced
from tests.processes import HomeserverProcess

EXAMPLE = Path(__file__).parents[2] / "examples" / "websocket_client.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The example, loaded from its file as a user would run it."""
    spec = importlib.util.spec_from_file_location("websocket_client", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def socket_of(example: ModuleType, server: HomeserverProcess, user: str) -> AsyncIterator[Any]:
    """A WebSocket on which a user has logged in."""
    url = server.url.replace("http://", "ws://") + example.PATH
    async with connect(url, max_size=None) as connection, asyncio.TaskGroup() as tasks:
        socket = example.MatrixSocket(connection)
        running = tasks.create_task(socket.run())
        identifier = {"type": "m.id.user", "user": user}
        login = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
        session = await socket.call("login", body=login)
        await socket.call("authenticate", access_token=session["access_token"])
        yield socket
        running.cancel()


async def test_the_socket_and_http_see_the_same(
    example: ModuleType, server: HomeserverProcess, alice: AsyncClient, bob: AsyncClient
) -> None:
    room_id = good(await alice.room_create(invite=[bob.user_id]), RoomCreateResponse).room_id
    await synced(alice)
    async with socket_of(example, server, bob.user) as socket:
        syncs = socket.syncs()
        first = await anext(syncs)
        assert room_id in first["rooms"]["invite"]
        assert (await socket.call("join_room_by_id", path={"room_id": room_id}))["room_id"] == room_id
        await socket.call(
            "send_message",
            path={"room_id": room_id, "event_type": "m.room.message", "txn_id": "1"},
            body={"msgtype": "m.text", "body": "Over the socket"},
        )
        message = await received(alice, room_id, RoomMessageText)
        assert (message.body, message.sender) == ("Over the socket", bob.user_id)
        await alice.room_send(room_id, "m.room.message", {"msgtype": "m.text", "body": "Over HTTP"})
        assert await bodies(syncs, room_id, 2) == ["Over the socket", "Over HTTP"]
        state = {"room_id": room_id, "event_type": "m.room.name", "state_key": ""}
        with pytest.raises(example.RequestFailed, match="M_FORBIDDEN"):
            await socket.call("set_room_state_with_key", path=state, body={})


async def test_the_example_runs_as_a_program(server: HomeserverProcess, alice: AsyncClient, bob: AsyncClient) -> None:
    room_id = good(await alice.room_create(invite=[bob.user_id]), RoomCreateResponse).room_id
    good(await bob.join(room_id), JoinResponse)
    await synced(alice)
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLE), server.url.replace("http://", "ws://"), bob.user, PASSWORD, room_id),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert program.stdin is not None
    program.stdin.write(b"Typed into the terminal\n")
    assert [event.body for event in await heard_messages(alice, room_id, 1)] == ["Typed into the terminal"]
    await alice.room_send(room_id, "m.room.message", {"msgtype": "m.text", "body": "Seen in the terminal"})
    assert program.stdout is not None
    shown = ""
    while "Seen in the terminal" not in shown:
        shown += (await program.stdout.readline()).decode()
    program.stdin.close()
    async with asyncio.timeout(20):
        assert await program.wait() == 0


async def bodies(syncs: AsyncIterator[dict[str, Any]], room_id: str, count: int) -> list[str]:
    """The texts of the next messages that are pushed."""
    found: list[str] = []
    while len(found) < count:
        sync = await anext(syncs)
        events = sync.get("rooms", {}).get("join", {}).get(room_id, {}).get("timeline", {}).get("events", [])
        found += [event["content"]["body"] for event in events if event["type"] == "m.room.message"]
    return found
