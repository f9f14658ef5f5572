"""Filters of syncs: by room, type, sender and content, and the form of events.

https://spec.matrix.org/v1.19/client-server-api/#filtering
"""

from typing import Any

from tests.api.sync.api import Device, event_ids, timeline_filter, types


async def test_rooms(alice: Device, bob: Device) -> None:
    one, two = await alice.create(bob), await alice.create(bob)
    invited = await alice.create(preset="private_chat", invite=[bob.user_id])
    left = await alice.create(bob)
    await bob.act(left, "leave")
    await bob.put(f"/user/{bob.user_id}/rooms/{one}/tags/u.x", {})

    async def told(room: dict[str, Any], **query: Any) -> set[str]:
        sync = await bob.peek(filter={"room": room}, **query)
        return {room_id for name in ("join", "invite", "leave") for room_id in sync.rooms(name)}

    for query in ({"since": None}, {"since": "s0"}, {"since": "s0", "full_state": True}):
        assert await told({"rooms": [one, invited, left], "include_leave": True}, **query) == {one, invited, left}
        assert await told({"not_rooms": [one, invited, left], "include_leave": True}, **query) == {two}
        assert await told({"rooms": [one], "not_rooms": [one]}, **query) == set()
        assert await told({"rooms": []}, **query) == set()
    await bob.sync()
    await alice.send(one)
    await alice.type(one)
    assert (await bob.peek(filter={"room": {"not_rooms": [one]}})).is_empty


async def test_rooms_of_single_sections(alice: Device, bob: Device) -> None:
    one, two = await alice.create(bob), await alice.create(bob)
    for room_id in (one, two):
        await alice.send(room_id)
        await alice.type(room_id)
        await bob.put(f"/user/{bob.user_id}/rooms/{room_id}/tags/u.x", {})
    hidden = {"not_rooms": [one]}
    sections = {"timeline": hidden, "state": hidden, "ephemeral": hidden, "account_data": hidden}
    sync = await bob.peek(since=None, filter={"room": sections})
    assert (sync.timeline(one), sync.state(one)) == ([], {})
    assert (sync.room_account_data(one), sync.ephemeral(one, "m.typing")) == ({}, [])
    assert sync.timeline(two)
    assert sync.room_account_data(two)
    assert sync.ephemeral(two, "m.typing")
    await bob.sync()
    await alice.send(one)
    await alice.rename(one, "Kitchen")
    await alice.type(one, typing=False)
    await bob.put(f"/user/{bob.user_id}/rooms/{one}/tags/u.y", {})
    assert (await bob.peek(filter={"room": sections})).is_empty


async def test_types_and_senders_of_timelines(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    mine, yours = await alice.send(room_id), await bob.send(room_id)
    special = await alice.send_event(room_id, "org.example.percent%25_x", {})
    name = await alice.rename(room_id, "Kitchen")
    everything = [mine, yours, special, name]
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, everything),
        ({"types": ["m.room.message"]}, [mine, yours]),
        ({"types": ["m.room.*"]}, [mine, yours, name]),
        ({"types": ["*"]}, everything),
        ({"types": []}, []),
        ({"types": ["org.example.percent%_*"]}, [special]),
        ({"types": ["%"]}, []),
        ({"not_types": ["m.room.message"]}, [special, name]),
        ({"types": ["m.room.*"], "not_types": ["*.name"]}, [mine, yours]),
        ({"senders": [bob.user_id]}, [yours]),
        ({"senders": []}, []),
        ({"not_senders": [bob.user_id]}, [mine, special, name]),
        ({"senders": [bob.user_id], "not_senders": [bob.user_id]}, []),
        ({"types": ["m.room.message"], "limit": 1}, [yours]),
    ]
    for definition, shown in cases:
        sync = await bob.peek(filter=timeline_filter(**definition))
        assert event_ids(sync.timeline(room_id)) == shown, definition


async def test_what_the_filter_hides_does_not_count(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    wanted = [await alice.send(room_id, f"{number}") for number in range(3)]
    for _ in range(40):
        await alice.send_event(room_id, "org.example.noise", {})
    timeline = (await bob.peek(filter=timeline_filter(types=["m.room.message"], limit=3))).room(room_id)["timeline"]
    assert event_ids(timeline["events"]) == wanted
    assert timeline["limited"] is False
    timeline = (await bob.peek(filter=timeline_filter(types=["m.room.message"], limit=2))).room(room_id)["timeline"]
    assert event_ids(timeline["events"]) == wanted[1:]
    assert timeline["limited"] is True


async def test_contents_with_a_url(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    pictures = [await alice.send(room_id, "picture", url=f"mxc://test/{number}") for number in range(2)]
    words = [await alice.send(room_id, "word") for _ in range(60)]
    for limit in (1, 2, 5):
        timeline = (await bob.peek(filter=timeline_filter(contains_url=True, limit=limit))).room(room_id)["timeline"]
        assert event_ids(timeline["events"]) == pictures[-limit:]
        assert timeline["limited"] is (limit < 2)
    sync = await bob.peek(filter=timeline_filter(contains_url=False, limit=3))
    assert event_ids(sync.timeline(room_id)) == words[-3:]


async def test_state(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob, name="Kitchen", topic="Soup")
    for number in range(12):
        await alice.send(room_id, f"{number}")

    async def told(**definition: Any) -> set[str]:
        sync = await bob.peek(since=None, filter={"room": {"state": definition}})
        return {event_type for event_type, _ in sync.state(room_id)}

    assert await told(types=["m.room.name", "m.room.topic"]) == {"m.room.name", "m.room.topic"}
    assert "m.room.name" not in await told(not_types=["m.room.*"])
    assert await told(types=["m.room.member"], senders=[bob.user_id]) == {"m.room.member"}
    assert await told(types=[]) == set()
    assert await told(contains_url=True) == set()


async def test_account_data(alice: Device) -> None:
    room_id = await alice.create()
    await alice.put(f"/user/{alice.user_id}/account_data/org.example.a", {})
    await alice.put(f"/user/{alice.user_id}/account_data/org.example.b", {})
    await alice.put(f"/user/{alice.user_id}/rooms/{room_id}/account_data/org.example.c", {})
    await alice.put(f"/user/{alice.user_id}/rooms/{room_id}/tags/u.x", {})

    async def told(definition: dict[str, Any]) -> set[str]:
        return set((await alice.peek(since=None, filter={"account_data": definition})).account_data)

    assert await told({}) == {"m.push_rules", "org.example.a", "org.example.b"}
    assert await told({"types": ["org.example.*"]}) == {"org.example.a", "org.example.b"}
    assert await told({"not_types": ["m.*", "*.b"]}) == {"org.example.a"}
    assert await told({"types": []}) == set()
    sync = await alice.peek(since=None, filter={"room": {"account_data": {"types": ["m.tag"]}}})
    assert set(sync.room_account_data(room_id)) == {"m.tag"}


async def test_ephemeral_events_and_presence(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    event_id = await bob.send(room_id)
    await alice.sync()
    await alice.type(room_id)
    await alice.read(room_id, event_id)
    await bob.sync(filter={"presence": {"types": []}})

    async def told(definition: dict[str, Any]) -> set[str]:
        sync = await bob.peek(since=None, filter={"room": {"ephemeral": definition}})
        return {event["type"] for event in sync.room(room_id)["ephemeral"]["events"]}

    assert await told({}) == {"m.typing", "m.receipt"}
    assert await told({"types": ["m.typing"]}) == {"m.typing"}
    assert await told({"not_types": ["m.typing"]}) == {"m.receipt"}
    assert await told({"types": []}) == set()
    presence = (await bob.peek(since=None)).presence
    assert {alice.user_id, bob.user_id} <= set(presence)
    assert "presence" not in (await bob.peek(since=None, filter={"presence": {"not_types": ["m.*"]}})).body
    sync = await bob.peek(since=None, filter={"presence": {"senders": [alice.user_id]}})
    assert set(sync.presence) == {alice.user_id}
    sync = await bob.peek(since=None, filter={"presence": {"not_senders": [alice.user_id]}})
    assert alice.user_id not in sync.presence


async def test_fields_of_events(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    await alice.send(room_id, "hello", format="x", extra={"deep": 1, "other": 2})
    sync = await bob.peek(filter={"event_fields": ["content.body", "content.extra.deep"]})
    assert sync.timeline(room_id) == [{"content": {"body": "hello", "extra": {"deep": 1}}}]
    (event,) = (await bob.peek(filter={"event_fields": ["type", "event_id", "unsigned.membership"]})).timeline(room_id)
    assert set(event) == {"type", "event_id", "unsigned"}
    assert event["unsigned"] == {"membership": "join"}


async def test_events_as_servers_exchange_them(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob, room_version="11")
    await bob.sync()
    event_id = await alice.send(room_id, "hello")
    (event,) = (await bob.peek(filter={"event_format": "federation"})).timeline(room_id)
    assert {"auth_events", "prev_events", "hashes", "signatures", "depth"} <= set(event)
    assert (event["event_id"], event["room_id"]) == (event_id, room_id)
    assert event["unsigned"]["membership"] == "join"
    first = await bob.peek(since=None, filter={"event_format": "federation", "room": {"timeline": {"limit": 1}}})
    assert all("signatures" in event for event in first.state(room_id).values())


async def test_a_filter_that_is_stored(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    await alice.rename(room_id, "Kitchen")
    await alice.send(room_id)
    definition = timeline_filter(types=["m.room.message"])
    filter_id = (await bob.post(f"/user/{bob.user_id}/filter", definition))["filter_id"]
    sync = await bob.peek(filter=filter_id)
    assert types(sync.timeline(room_id)) == ["m.room.message"]
    reply = await alice.call("GET", "/sync", filter=filter_id)
    assert (reply.status, reply.json["errcode"]) == (400, "M_INVALID_PARAM"), "it is bob's"
