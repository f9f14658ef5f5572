"""What passes in rooms, account data, presence, and messages to devices."""

import asyncio
from typing import Any

import asyncpg
import orjson

from tests.api.server import Site
from tests.api.sync.api import Device
from tests.waiting import wait_until


async def test_typing_is_told_when_it_begins_and_when_it_ends(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    await alice.type(room_id)
    sync = await bob.sync()
    assert sync.ephemeral(room_id, "m.typing") == [{"user_ids": [alice.user_id]}]
    assert (sync.timeline(room_id), sync.state(room_id)) == ([], {})
    await alice.type(room_id)
    assert (await bob.sync()).is_empty, "who goes on typing is no news"
    assert (await bob.peek(since=None)).ephemeral(room_id, "m.typing") == [{"user_ids": [alice.user_id]}]
    await alice.type(room_id, typing=False)
    assert (await bob.sync()).ephemeral(room_id, "m.typing") == [{"user_ids": []}]
    assert (await bob.peek(since=None)).ephemeral(room_id, "m.typing") == [{"user_ids": []}]
    quiet = await bob.create()
    assert (await bob.peek(since=None)).ephemeral(quiet, "m.typing") == []


async def test_receipts_are_told_as_they_move(alice: Device, bob: Device, carol: Device) -> None:
    room_id = await alice.create(bob, carol)
    one, two = await alice.send(room_id, "one"), await alice.send(room_id, "two")
    await bob.sync()
    await alice.read(room_id, one)
    await carol.read(room_id, one, thread_id="main")
    await carol.read(room_id, one)
    sync = await bob.sync()
    told = [content[one]["m.read"] for content in sync.ephemeral(room_id, "m.receipt")]
    assert {user_id: set() for users in told for user_id in users} == {alice.user_id: set(), carol.user_id: set()}
    assert [users[carol.user_id].get("thread_id") for users in told if carol.user_id in users] == ["main", None]
    await alice.read(room_id, two)
    (receipts,) = (await bob.sync()).ephemeral(room_id, "m.receipt")
    assert set(receipts) == {two}
    assert receipts[two]["m.read"][alice.user_id]["ts"] > 0
    await alice.read(room_id, one)
    assert (await bob.sync()).is_empty, "a receipt does not go back"


async def test_private_receipts_are_told_to_oneself_only(site: Site, alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    event_id = await alice.send(room_id)
    other = Device.of(await site.login("bob"))
    # Twice, for each learns of the presence of those after it.
    for device in (alice, bob, other) * 2:
        await device.sync()
    await bob.read(room_id, event_id, receipt_type="m.read.private")
    assert (await alice.sync()).is_empty
    for device in (bob, other):
        sync = await device.sync()
        (receipts,) = sync.ephemeral(room_id, "m.receipt")
        assert set(receipts[event_id]) == {"m.read.private"}
        assert sync.room(room_id)["unread_notifications"]["notification_count"] == 0


async def test_a_room_that_is_entered_comes_with_what_passes_in_it(alice: Device, bob: Device) -> None:
    room_id = await alice.create()
    event_id = await alice.send(room_id)
    await alice.read(room_id, event_id)
    await alice.type(room_id)
    await bob.sync()
    await bob.act(room_id, "join")
    sync = await bob.sync()
    assert sync.ephemeral(room_id, "m.typing") == [{"user_ids": [alice.user_id]}]
    (receipts,) = sync.ephemeral(room_id, "m.receipt")
    assert set(receipts[event_id]["m.read"]) == {alice.user_id}


async def test_account_data_is_told_to_all_devices(site: Site, alice: Device) -> None:
    room_id = await alice.create()
    other = Device.of(await site.login("alice"))
    for device in (alice, other):
        await device.sync()
    path = f"/user/{alice.user_id}"
    await alice.put(f"{path}/account_data/org.example", {"n": 1})
    await alice.put(f"{path}/rooms/{room_id}/account_data/org.example", {"n": 2})
    await alice.put(f"{path}/rooms/{room_id}/tags/u.home", {"order": 0.1})
    for device in (alice, other):
        sync = await device.sync()
        assert sync.account_data == {"org.example": {"n": 1}}
        assert sync.room_account_data(room_id) == {
            "org.example": {"n": 2},
            "m.tag": {"tags": {"u.home": {"order": 0.1}}},
        }
        assert sync.timeline(room_id) == []
        assert (await device.sync()).is_empty
    await alice.delete(f"{path}/rooms/{room_id}/tags/u.home")
    assert (await other.sync()).room_account_data(room_id) == {"m.tag": {"tags": {}}}


async def test_account_data_of_rooms_that_one_is_not_in_waits_for_the_joining(alice: Device, bob: Device) -> None:
    room_id = await alice.create(preset="private_chat", invite=[bob.user_id])
    await bob.sync()
    await bob.put(f"/user/{bob.user_id}/rooms/{room_id}/account_data/org.example", {"n": 1})
    assert (await bob.sync()).is_empty
    await bob.act(room_id, "join")
    assert (await bob.sync()).room_account_data(room_id) == {"org.example": {"n": 1}}


async def test_push_rules_are_account_data(alice: Device) -> None:
    await alice.sync()
    await alice.put("/pushrules/global/content/org.example", {"pattern": "soup", "actions": ["notify"]})
    rules = (await alice.sync()).account_data["m.push_rules"]["global"]["content"]
    assert "org.example" in {rule["rule_id"] for rule in rules}
    assert (await alice.sync()).is_empty


async def test_presence_of_those_who_share_a_room(site: Site, alice: Device, bob: Device, carol: Device) -> None:
    await alice.create(bob)
    quiet = {"set_presence": "offline"}
    await bob.sync(**quiet)
    await alice.put(f"/presence/{alice.user_id}/status", {"presence": "online", "status_msg": "here"})
    await carol.put(f"/presence/{carol.user_id}/status", {"presence": "online"})
    presence = (await bob.sync(**quiet)).presence
    assert set(presence) == {alice.user_id}
    assert (presence[alice.user_id]["presence"], presence[alice.user_id]["status_msg"]) == ("online", "here")
    room_id = await carol.create()
    await bob.act(room_id, "join")
    presence = (await bob.sync(**quiet)).presence
    assert presence[carol.user_id]["presence"] == "online", "bob has come to carol's room"
    dave = Device.of(await site.register("dave"))
    await dave.put(f"/presence/{dave.user_id}/status", {"presence": "unavailable"})
    assert dave.user_id not in (await bob.sync(**quiet)).presence
    await dave.act(room_id, "join")
    presence = (await bob.sync(**quiet)).presence
    assert presence[dave.user_id]["presence"] == "unavailable", "dave has come to bob's room"
    await dave.set_state(room_id, "m.room.member", {"membership": "join", "displayname": "D"}, dave.user_id)
    assert "presence" not in (await bob.sync(**quiet)).body, "another name is no coming"


async def test_syncing_makes_one_present(alice: Device, bob: Device) -> None:
    await alice.create(bob)
    await bob.sync(set_presence="offline")
    assert (await alice.sync(set_presence="unavailable")).presence[alice.user_id]["presence"] == "unavailable"
    presence = (await bob.sync(set_presence="offline")).presence
    assert presence[alice.user_id]["presence"] == "unavailable"
    assert bob.user_id not in presence


async def test_sending_is_activity(site: Site, alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await alice.sync()
    site.clock.advance(120)

    async def was_active_lately() -> bool:
        ago: int = (await bob.get(f"/presence/{alice.user_id}/status"))["last_active_ago"]
        return ago < 60_000

    assert not await was_active_lately()
    event_id = await alice.send(room_id)
    await wait_until(was_active_lately)
    site.clock.advance(120)
    assert not await was_active_lately()
    await alice.redact(room_id, event_id)
    await wait_until(was_active_lately)


async def _write_to_device(database_url: str, device: Device, numbers: range) -> None:
    """Writes messages to a device as other services do, each in a transaction of its own."""
    connection = await asyncpg.connect(database_url)
    try:
        for number in numbers:
            message = {"type": "org.example", "sender": "@x:test", "content": {"n": number}}
            await connection.execute(
                "INSERT INTO to_device_messages (user_id, device_id, message) VALUES ($1, $2, $3)",
                device.user_id,
                device.device_id,
                orjson.dumps(message).decode(),
            )
    finally:
        await connection.close()


def _told(sync: Any) -> list[int]:
    return [message["content"]["n"] for message in sync.body.get("to_device", {"events": []})["events"]]


async def test_messages_to_a_device_are_told_until_they_are_confirmed(
    site: Site, alice: Device, database_url: str
) -> None:
    other = Device.of(await site.login("alice"))
    await alice.sync()
    await other.sync()
    await _write_to_device(database_url, alice, range(3))
    assert _told(await alice.peek()) == [0, 1, 2]
    assert _told(await alice.sync()) == [0, 1, 2]
    assert (await alice.sync()).is_empty
    assert (await other.sync()).is_empty
    assert _told(await alice.peek(since=None)) == []


async def test_very_many_messages_to_a_device_come_in_parts(alice: Device, bob: Device, database_url: str) -> None:
    room_id = await alice.create(bob)
    await alice.sync()
    await bob.send(room_id, "early")
    await _write_to_device(database_url, alice, range(150))
    late = await bob.send(room_id, "late")
    first = await alice.sync()
    assert _told(first) == list(range(100))
    assert first.bodies(room_id) == ["early"], "the answer ends at the same point for all that it tells"
    second = await alice.sync()
    assert _told(second) == list(range(100, 150))
    assert [event["event_id"] for event in second.timeline(room_id)] == [late]
    assert (await alice.sync()).is_empty


async def test_a_device_that_waits_is_woken_by_a_message_to_it(alice: Device, database_url: str) -> None:
    await alice.sync()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(alice.sync(timeout=20_000))
        await _write_to_device(database_url, alice, range(1))
        # Whoever sends would wake the user; here the hub's tick does it by other news of the user.
        await alice.put(f"/user/{alice.user_id}/account_data/org.example", {})
    assert _told(waiting.result()) == [0]
