"""What passes: typing, receipts and presence, between a Synapse and this server.

https://spec.matrix.org/v1.19/server-server-api/#typing-notifications and the sections that follow it
"""

from typing import Any
from urllib.parse import quote

import pytest

from synapse_compat_tests.federation.conftest import Pair
from tests.federation.servers.rooms import act, until_membership, until_seen, until_synced
from tests.real_client import Client
from tests.waiting import wait_until


def ephemeral(answer: Any, room_id: str, event_type: str) -> list[Any]:
    """The contents of a room's ephemeral events of a type, in the answer to a sync."""
    room = answer.get("rooms", {}).get("join", {}).get(room_id, {})
    return [event["content"] for event in room.get("ephemeral", {}).get("events", []) if event["type"] == event_type]


def types(answer: Any, room_id: str, *expected: str) -> bool:
    """Whether a sync says that these users type, and no others."""
    contents = ephemeral(answer, room_id, "m.typing")
    return bool(contents) and contents[-1]["user_ids"] == list(expected)


async def test_typing_is_shown_and_ends(pair: Pair) -> None:
    room_id = await pair.share_room()
    for writer, watcher in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
        typing = f"/rooms/{quote(room_id)}/typing/{writer.user_id}"
        await writer.put(typing, {"typing": True, "timeout": 30_000})

        def is_shown(answer: Any, writer: Client = writer) -> bool:
            return types(answer, room_id, writer.user_id)

        answer = await until_synced(watcher, is_shown)
        await writer.put(typing, {"typing": False})
        since = answer["next_batch"]

        async def has_ended(watcher: Client = watcher, since: str = since) -> bool:
            return types(await watcher.sync(since), room_id)

        await wait_until(has_ended)


@pytest.mark.parametrize("thread_id", [None, "main"])
async def test_receipts_are_shown(pair: Pair, thread_id: str | None) -> None:
    room_id = await pair.share_room()
    body = {} if thread_id is None else {"thread_id": thread_id}
    for writer, reader in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
        event_id = await writer.send(room_id, f"read this, says {writer.user_id}")
        await until_seen(reader, room_id, f"read this, says {writer.user_id}")
        await reader.post(f"/rooms/{quote(room_id)}/receipt/m.read/{quote(event_id, safe='')}", body)

        def has_read(answer: Any, event_id: str = event_id, reader: Client = reader) -> bool:
            found = [
                content.get(event_id, {}).get("m.read", {}).get(reader.user_id)
                for content in ephemeral(answer, room_id, "m.receipt")
            ]
            return any(receipt is not None and receipt.get("thread_id") == thread_id for receipt in found)

        await until_synced(writer, has_read)


async def test_private_receipts_are_not_told(pair: Pair) -> None:
    """A public one that follows is told, so that there is something to wait for."""
    room_id = await pair.share_room()
    for writer, reader in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
        ids = [await writer.send(room_id, f"{number} of {writer.user_id}") for number in range(2)]
        await until_seen(reader, room_id, f"1 of {writer.user_id}")
        await reader.post(f"/rooms/{quote(room_id)}/receipt/m.read.private/{quote(ids[0], safe='')}", {})
        await reader.post(f"/rooms/{quote(room_id)}/receipt/m.read/{quote(ids[1], safe='')}", {})
        told: list[Any] = []

        def is_told(answer: Any, told: list[Any] = told, reader: Client = reader, last: str = ids[1]) -> bool:
            told += ephemeral(answer, room_id, "m.receipt")
            return any(reader.user_id in content.get(last, {}).get("m.read", {}) for content in told)

        await until_synced(writer, is_told)
        assert not any(ids[0] in content for content in told)


async def test_presence_is_shown(pair: Pair) -> None:
    await pair.share_room()
    for shown, watcher in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
        status = {"presence": "online", "status_msg": f"busy, says {shown.user_id}"}
        await shown.put(f"/presence/{shown.user_id}/status", status)

        def is_shown(answer: Any, shown: Client = shown, status: dict[str, str] = status) -> bool:
            events = answer.get("presence", {}).get("events", [])
            return any(
                event["sender"] == shown.user_id and status.items() <= event["content"].items() for event in events
            )

        await until_synced(watcher, is_shown)
        answer = await watcher.get(f"/presence/{shown.user_id}/status")
        assert (answer["presence"], answer["status_msg"]) == ("online", status["status_msg"])
        await shown.put(f"/presence/{shown.user_id}/status", {"presence": "offline"})

        async def is_offline(shown: Client = shown, watcher: Client = watcher) -> bool:
            answer = await watcher.get(f"/presence/{shown.user_id}/status")
            return bool(answer["presence"] == "offline")

        await wait_until(is_offline)


async def test_presence_is_shown_to_those_who_come(pair: Pair) -> None:
    """Who joins later is told of those who are there already."""
    room_id = await pair.alice.create_room(preset="private_chat", invite=[pair.bob.user_id])
    await pair.alice.put(
        f"/presence/{pair.alice.user_id}/status", {"presence": "online", "status_msg": "here all along"}
    )
    await pair.bob.post(f"/join/{quote(room_id)}")
    await until_membership(pair.alice, room_id, pair.bob.user_id, "join")

    async def is_known() -> bool:
        answer = await pair.bob.call("GET", f"/presence/{pair.alice.user_id}/status")
        return answer.status == 200 and answer.body.get("status_msg") == "here all along"

    await wait_until(is_known)
    await act(pair.bob, "leave", room_id)
