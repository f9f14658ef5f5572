"""Messages to devices reach the other server: once, in order, and also one that was away.

https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging
"""

from typing import Any

import pytest

from tests.federation.servers.conftest import Pair
from tests.real_client import Client, new_device
from tests.waiting import wait_until


async def send(client: Client, txn_id: str, to: Client, content: Any, *, device_id: str | None = None) -> None:
    """Sends a message to a device of another user."""
    messages = {to.user_id: {device_id or to.device_id: content}}
    await client.put(f"/sendToDevice/m.test/{txn_id}", {"messages": messages})


class Inbox:
    """What a device has been handed, each message confirmed by the next sync."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._since: str | None = None
        self.events: list[Any] = []

    @property
    def contents(self) -> list[Any]:
        """The contents of all messages so far."""
        return [event["content"] for event in self.events]

    async def reaches(self, count: int) -> bool:
        """Takes what is there; whether that makes so many messages."""
        answer = await self._client.sync(self._since)
        self._since = answer["next_batch"]
        self.events += answer.get("to_device", {"events": []})["events"]
        return len(self.events) >= count


async def test_messages_arrive_once_and_in_order(pair: Pair) -> None:
    async with new_device(pair.bob) as second:
        inboxes = [Inbox(pair.bob), Inbox(second)]
        for number in range(10):
            await send(pair.alice, str(number), pair.bob, {"n": number}, device_id="*")
            await send(pair.alice, str(number), pair.bob, {"n": "repeated"}, device_id="*")
        for inbox in inboxes:
            await wait_until(lambda inbox=inbox: inbox.reaches(10))
            assert inbox.contents == [{"n": number} for number in range(10)]
            assert {(event["sender"], event["type"]) for event in inbox.events} == {(pair.alice.user_id, "m.test")}
        await send(pair.bob, "back", pair.alice, {"n": "back"})
        back = Inbox(pair.alice)
        await wait_until(lambda: back.reaches(1))
        assert back.contents == [{"n": "back"}]


async def test_large_messages_are_divided(pair: Pair) -> None:
    content = {"padding": "x" * 30_000}
    devices = {f"DEVICE{number}": content for number in range(5)} | {pair.bob.device_id: content}
    await pair.alice.put("/sendToDevice/m.test/1", {"messages": {pair.bob.user_id: devices}})
    inbox = Inbox(pair.bob)
    await wait_until(lambda: inbox.reaches(1))
    assert inbox.contents == [content]


@pytest.mark.parametrize("away", ["sender", "recipient"])
async def test_messages_survive_that_a_server_is_away(fast_pair: Pair, away: str) -> None:
    pair = fast_pair
    await pair.two.stop()
    for number in range(5):
        await send(pair.alice, str(number), pair.bob, {"n": number})
    if away == "sender":
        await pair.one.stop()
        await pair.deployment.restart(pair.one)
    await pair.deployment.restart(pair.two)
    inbox = Inbox(pair.bob)
    await wait_until(lambda: inbox.reaches(5), seconds_max=30)
    assert inbox.contents == [{"n": number} for number in range(5)]
