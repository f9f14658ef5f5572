"""Messages to devices: https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from tests.api.server import Client, Site, refused


def path(txn_id: str, event_type: str = "m.test") -> str:
    return f"/sendToDevice/{event_type}/{txn_id}"


async def send(client: Client, txn_id: str, messages: Mapping[str, Any], event_type: str = "m.test") -> None:
    assert await client.put(path(txn_id, event_type), {"messages": messages}) == {}


async def received(client: Client, since: str | None = None) -> tuple[list[Any], str]:
    """What a device is handed, and the token with which it confirms that."""
    answer = await client.get("/sync", **({} if since is None else {"since": since}))
    return answer.get("to_device", {"events": []})["events"], answer["next_batch"]


async def test_a_message_is_handed_over_until_it_is_confirmed(alice: Client, bob: Client) -> None:
    await send(alice, "1", {bob.user_id: {bob.device_id: {"body": "hello"}}})
    message = {"type": "m.test", "sender": alice.user_id, "content": {"body": "hello"}}
    assert (await received(bob))[0] == [message]
    events, token = await received(bob)
    assert events == [message]
    assert (await received(bob, token))[0] == []
    assert (await received(bob))[0] == []
    assert (await received(alice))[0] == []


async def test_a_repeated_request_sends_once(site: Site, alice: Client, bob: Client) -> None:
    second = await site.login("alice")
    to_bob = {bob.user_id: {bob.device_id: {"n": 1}}}
    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(send(alice, "same", to_bob))
    await send(alice, "same", {bob.user_id: {bob.device_id: {"n": 2}}})
    assert len((await received(bob))[0]) == 1
    await send(second, "same", to_bob)
    await send(alice, "same", to_bob, "m.other")
    assert len((await received(bob))[0]) == 3


async def test_all_devices_of_a_user(site: Site, alice: Client, bob: Client) -> None:
    others = [await site.login("bob") for _ in range(2)]
    await send(alice, "1", {bob.user_id: {"*": {"to": "all"}}})
    await send(alice, "2", {bob.user_id: {others[0].device_id: {"to": "one"}, "NONE": {"to": "nobody"}}})
    await send(alice, "3", {"@nobody:test": {"*": {}}})
    for client in (bob, *others):
        told = [event["content"]["to"] for event in (await received(client))[0]]
        assert told == (["all", "one"] if client is others[0] else ["all"])


async def test_who_waits_is_woken(alice: Client, bob: Client) -> None:
    _, token = await received(bob)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(bob.get("/sync", since=token, timeout=30_000))
        await send(alice, "1", {bob.user_id: {bob.device_id: {}}})
    assert len(waiting.result()["to_device"]["events"]) == 1


async def test_many_messages_come_in_order_and_a_hundred_at_a_time(site: Site, alice: Client, bob: Client) -> None:
    for number in range(25):
        await send(alice, str(number), {bob.user_id: {bob.device_id: {"n": number * 10}}})
        batch = {bob.user_id: {"*": {"n": number * 10 + 1}}}
        await send(alice, f"{number}+", batch)
    told: list[int] = []
    token = None
    for _ in range(3):
        events, token = await received(bob, token)
        told += [event["content"]["n"] for event in events]
        assert len(events) <= 100
    assert told == sorted(told)
    assert len(told) == 50


async def test_ten_thousand_messages_to_a_device_that_was_away(database_url: str, site: Site, bob: Client) -> None:
    conn = await asyncpg.connect(database_url)
    try:
        for start in range(0, 10_000, 50):
            await conn.executemany(
                "INSERT INTO to_device_messages (user_id, device_id, message) VALUES ($1, $2, $3)",
                [(bob.user_id, bob.device_id, f'{{"content":{{"n":{n}}}}}') for n in range(start, start + 50)],
            )
    finally:
        await conn.close()
    told: list[int] = []
    token = None
    while len(told) < 10_000:
        events, token = await received(bob, token)
        assert 0 < len(events) <= 100
        told += [event["content"]["n"] for event in events]
    assert told == list(range(10_000))
    assert (await received(bob, token))[0] == []


async def test_messages_go_with_the_device(site: Site, alice: Client, bob: Client) -> None:
    second = await site.login("bob")
    await send(alice, "1", {bob.user_id: {second.device_id: {"secret": 1}}})
    await second.post("/logout")
    again = await site.login("bob", device_id=second.device_id)
    assert (await received(again))[0] == []


WRONG_BODIES: Sequence[tuple[Any, str]] = (
    ({}, "M_MISSING_PARAM"),
    ({"messages": []}, "M_BAD_JSON"),
    ({"messages": {"@bob:test": []}}, "M_BAD_JSON"),
    ({"messages": {"@bob:test": {"D": 1}}}, "M_BAD_JSON"),
    ({"messages": {"bob": {"D": {}}}}, "M_INVALID_PARAM"),
    ({"messages": {"@bob:test": {"": {}}}}, "M_INVALID_PARAM"),
    ({"messages": {"@bob:test": {"D": {"x": "x" * 70_000}}}}, "M_INVALID_PARAM"),
    ({"messages": {"@bob:elsewhere.example": {"D": {"x": "x" * 70_000}}}}, "M_INVALID_PARAM"),
    ({"messages": {"@bob:test": {str(number): {} for number in range(10_001)}}}, "M_INVALID_PARAM"),
)


async def test_wrong_requests_send_nothing(alice: Client, bob: Client) -> None:
    for body, errcode in WRONG_BODIES:
        refused(await alice.call("PUT", path("1"), body), 400, errcode)
    for wrong_path in (path("x" * 256), path("1", "t" * 256)):
        refused(await alice.call("PUT", wrong_path, {"messages": {}}), 400, "M_INVALID_PARAM")
    await send(alice, "1", {bob.user_id: {"*": {}}})
    assert len((await received(bob))[0]) == 1
