"""A first chat through a real client, matrix-nio: two people get a room, one writes, the other reads.

    pip install matrix-nio
    python first_chat.py http://127.0.0.1:8008

They register, so the server must let everybody do that, as one of `make run` does.
"""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from nio import (
    AsyncClient,
    ErrorResponse,
    JoinResponse,
    MatrixRoom,
    RegisterResponse,
    RoomCreateResponse,
    RoomMessageText,
    RoomSendResponse,
    SyncResponse,
)

T = TypeVar("T")


@asynccontextmanager
async def new_person(url: str, name: str) -> AsyncIterator[AsyncClient]:
    """A client of somebody who has just registered, under a name that nobody has yet."""
    client = AsyncClient(url)
    try:
        expect(RegisterResponse, await client.register(f"{name}-{secrets.token_hex(3)}", secrets.token_urlsafe()))
        yield client
    finally:
        await client.close()


def expect(wanted: type[T], answer: object) -> T:
    """The answer, if it is the one that was hoped for; else the example ends."""
    if isinstance(answer, wanted):
        return answer
    raise SystemExit(answer.message if isinstance(answer, ErrorResponse) else f"An unexpected answer: {answer}")


async def main(url: str) -> None:
    """Lets Alice and Bob chat, and prints what Bob hears."""
    heard: asyncio.Queue[tuple[MatrixRoom, RoomMessageText]] = asyncio.Queue()

    async def hear(room: MatrixRoom, event: RoomMessageText) -> None:
        await heard.put((room, event))

    async with new_person(url, "alice") as alice, new_person(url, "bob") as bob, asyncio.TaskGroup() as tasks:
        bob.add_event_callback(hear, RoomMessageText)
        room_id = expect(RoomCreateResponse, await alice.room_create(name="Kitchen", invite=[bob.user_id])).room_id
        expect(JoinResponse, await bob.join(room_id))
        expect(SyncResponse, await bob.sync(full_state=True))
        following = tasks.create_task(bob.sync_forever(timeout=30_000))
        text = {"msgtype": "m.text", "body": "Hello, Bob"}
        expect(RoomSendResponse, await alice.room_send(room_id, "m.room.message", text))
        room, event = await heard.get()
        sys.stdout.write(f"{bob.user_id} in {room.display_name}: {event.sender} says {event.body!r}\n")
        following.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8008"))
