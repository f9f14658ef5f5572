"""A small chat over the WebSocket transport: logs in, prints the messages of all rooms, sends lines to one of them.

    pip install websockets
    python websocket_client.py ws://127.0.0.1:8008 alice PASSWORD '!room:example.org'

The protocol is described in docs/websocket.md.
"""

import asyncio
import itertools
import json
import secrets
import sys
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

PATH = "/_matrix/client/unstable/org.heliograph.ws"


class RequestFailed(Exception):
    """The server answered with an error."""


class MatrixSocket:
    """Requests and pushed syncs over one WebSocket; `run` must be running for anything to arrive."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._syncs: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def run(self) -> None:
        """Takes in frames until the connection ends, which is an error."""
        async for text in self._connection:
            frame = json.loads(text)
            if "ping" in frame:
                await self._send({"pong": frame["ping"]})
            elif "sync" in frame:
                self._syncs.put_nowait(frame)
            elif frame.get("id") in self._waiting:
                self._waiting.pop(frame["id"]).set_result(frame)
        raise ConnectionError("The server has ended the connection")

    async def call(self, operation: str, **members: Any) -> Any:
        """Calls an operation with `path`, `query` and `body`, and returns the body of its answer."""
        frame_id = next(self._ids)
        answer = self._waiting[frame_id] = asyncio.get_running_loop().create_future()
        await self._send({"id": frame_id, "operation": operation, **members})
        frame = await answer
        body = frame.get("error") or frame.get("body")
        if frame.get("status", 400) >= 400:
            raise RequestFailed(f"{operation}: {body}")
        return body

    async def syncs(self, **query: Any) -> AsyncIterator[dict[str, Any]]:
        """Subscribes, and hands over one sync after the other; the next is asked for when one has been dealt with."""
        frame_id = next(self._ids)
        await self._send({"id": frame_id, "operation": "subscribe_sync", "query": query})
        while True:
            sync = (await self._syncs.get())["sync"]
            yield sync
            await self._send({"id": frame_id, "ack": sync["next_batch"]})

    async def _send(self, frame: dict[str, Any]) -> None:
        await self._connection.send(json.dumps(frame))


async def show_messages(socket: MatrixSocket) -> None:
    """Prints each message that arrives."""
    async for sync in socket.syncs(set_presence="online"):
        for room_id, room in sync.get("rooms", {}).get("join", {}).items():
            for event in room["timeline"]["events"]:
                if event["type"] == "m.room.message":
                    sys.stdout.write(f"{room_id} {event['sender']}: {event['content'].get('body')}\n")


async def send_lines(socket: MatrixSocket, room_id: str) -> None:
    """Sends each line of standard input to a room."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        path = {"room_id": room_id, "event_type": "m.room.message", "txn_id": secrets.token_hex(8)}
        await socket.call("send_message", path=path, body={"msgtype": "m.text", "body": line.rstrip("\n")})


async def main(url: str, user: str, password: str, room_id: str) -> None:
    """Logs in and chats until standard input ends."""
    async with connect(url + PATH, max_size=None) as connection, asyncio.TaskGroup() as tasks:
        socket = MatrixSocket(connection)
        running = tasks.create_task(socket.run())
        identifier = {"type": "m.id.user", "user": user}
        login = {"type": "m.login.password", "identifier": identifier, "password": password}
        session = await socket.call("login", body=login)
        await socket.call("authenticate", access_token=session["access_token"])
        showing = tasks.create_task(show_messages(socket))
        await send_lines(socket, room_id)
        await socket.call("logout")
        showing.cancel()
        running.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
