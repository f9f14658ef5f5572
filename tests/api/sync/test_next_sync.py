"""Syncs that go on from another one: what is new, gaps, and whole states on demand."""

from tests.api.server import Site
from tests.api.sync.api import Device, event_ids, timeline_filter, types


async def test_what_is_new_is_told_once(alice: Device, bob: Device) -> None:
    room_id, other_id = await alice.create(bob), await alice.create(bob)
    await bob.sync()
    assert (await bob.sync()).is_empty
    first, second = await alice.send(room_id, "one"), await bob.send(room_id, "two")
    sync = await bob.peek()
    assert event_ids(sync.timeline(room_id)) == [first, second]
    assert sync.room(room_id)["timeline"]["limited"] is False
    assert sync.state(room_id) == {}
    assert other_id not in sync.rooms()
    assert event_ids((await bob.sync()).timeline(room_id)) == [first, second], "an answer that was lost is given again"
    assert (await bob.sync()).is_empty


async def test_state_changes_come_in_the_timeline(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    event_id = await alice.rename(room_id, "Kitchen")
    sync = await bob.sync()
    assert event_ids(sync.timeline(room_id)) == [event_id]
    assert sync.state(room_id) == {}
    assert sync.room(room_id)["summary"]["m.joined_member_count"] == 2
    await alice.set_state(room_id, "m.room.topic", {"topic": "Soup"})
    assert "summary" not in (await bob.sync()).room(room_id)


async def test_state_after_comes_beside_the_timeline(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    bob.sync_query = {"use_state_after": True}
    await bob.sync()
    event_id = await alice.rename(room_id, "Kitchen")
    sync = await bob.sync()
    assert event_ids(sync.timeline(room_id)) == [event_id]
    assert set(sync.state(room_id, member="state_after")) == {("m.room.name", "")}
    await alice.send(room_id)
    assert (await bob.sync()).state(room_id, member="state_after") == {}, "it is there, even if it is empty"


async def test_a_gap_tells_the_state_that_it_hides(alice: Device, bob: Device, carol: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    await alice.rename(room_id, "Kitchen")
    await alice.set_state(room_id, "m.room.topic", {"topic": "Soup"})
    await alice.rename(room_id, "Bath")
    await carol.act(room_id, "join")
    sent = [await alice.send(room_id, f"{number}") for number in range(3)]
    late = await alice.set_state(room_id, "m.room.topic", {"topic": "Towels"})
    sync = await bob.peek(filter=timeline_filter(limit=3))
    timeline = sync.room(room_id)["timeline"]
    assert timeline["limited"] is True
    assert event_ids(timeline["events"]) == [*sent[1:], late]
    state = sync.state(room_id)
    assert set(state) == {("m.room.name", ""), ("m.room.topic", ""), ("m.room.member", carol.user_id)}
    assert state["m.room.name", ""]["content"] == {"name": "Bath"}
    assert state["m.room.topic", ""]["content"] == {"topic": "Soup"}
    page = await bob.get(
        f"/rooms/{room_id}/messages", dir="b", limit=100, to=bob.since, **{"from": timeline["prev_batch"]}
    )
    assert len(page["chunk"]) == 5, "the gap can be closed"
    after = await bob.peek(filter=timeline_filter(limit=3), use_state_after=True)
    assert after.state(room_id, member="state_after")["m.room.topic", ""]["content"] == {"topic": "Towels"}


async def test_a_gap_without_changes_of_state_tells_none(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    await alice.rename(room_id, "Kitchen")
    name = await alice.rename(room_id, "Bath")
    sync = await bob.sync(filter=timeline_filter(limit=1))
    assert event_ids(sync.timeline(room_id)) == [name]
    assert set(sync.state(room_id)) == {("m.room.name", "")}, "that before the timeline"
    for number in range(3):
        await alice.send(room_id, f"{number}")
    sync = await bob.sync(filter=timeline_filter(limit=1))
    assert sync.room(room_id)["timeline"]["limited"] is True
    assert sync.state(room_id) == {}


async def test_timelines_without_events_of_state_tell_it_beside_them(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    messages = timeline_filter(types=["m.room.message"])
    await bob.sync(filter=messages)
    await alice.rename(room_id, "Kitchen")
    await alice.send(room_id, "hello")
    sync = await bob.sync(filter=messages)
    assert sync.bodies(room_id) == ["hello"]
    assert sync.room(room_id)["timeline"]["limited"] is False
    assert set(sync.state(room_id)) == {("m.room.name", "")}
    await alice.rename(room_id, "Bath")
    sync = await bob.sync(filter=messages)
    assert sync.timeline(room_id) == []
    assert sync.state(room_id)["m.room.name", ""]["content"] == {"name": "Bath"}
    assert (await bob.sync(filter=messages)).is_empty


async def test_the_full_state_on_demand(alice: Device, bob: Device) -> None:
    room_id, other_id = await alice.create(bob), await alice.create(bob)
    await bob.sync()
    sync = await bob.peek(full_state=True, timeout=30_000)
    assert set(sync.rooms()) == {room_id, other_id}
    for told in (room_id, other_id):
        state = await bob.get(f"/rooms/{told}/state")
        assert set(sync.state(told)) == {(event["type"], event["state_key"]) for event in state}
        assert sync.timeline(told) == []
        assert "summary" in sync.room(told)
    event_id = await alice.rename(room_id, "Kitchen")
    sync = await bob.peek(full_state=True)
    assert event_ids(sync.timeline(room_id)) == [event_id]
    assert ("m.room.name", "") not in sync.state(room_id), "the timeline brings it"
    assert ("m.room.create", "") in sync.state(room_id)
    after = (await bob.peek(full_state=True, use_state_after=True)).state(room_id, member="state_after")
    assert after["m.room.name", ""]["event_id"] == event_id


async def test_the_transaction_id_is_for_the_device_that_sent_it(site: Site, alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    other = await Device.of(await site.login("alice")).caught_up()
    for device in (alice, bob):
        await device.sync()
    await alice.put(f"/rooms/{room_id}/send/m.room.message/mine", {"msgtype": "m.text", "body": "x"})
    assert (await alice.sync()).timeline(room_id)[0]["unsigned"]["transaction_id"] == "mine"
    for device in (other, bob):
        assert "transaction_id" not in (await device.sync()).timeline(room_id)[0]["unsigned"]


async def test_what_is_said_of_events(site: Site, alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await alice.rename(room_id, "Kitchen")
    await bob.sync()
    event_id = await alice.send(room_id, "secret")
    await alice.rename(room_id, "Bath")
    site.clock.advance(5)
    message, name = (await bob.sync()).timeline(room_id)
    assert 5000 <= message["unsigned"]["age"] < 60_000
    assert message["unsigned"]["membership"] == "join"
    assert name["unsigned"]["prev_content"] == {"name": "Kitchen"}
    redaction_id = await alice.redact(room_id, event_id, reason="Oops")
    (redaction,) = (await bob.sync()).timeline(room_id)
    assert (redaction["event_id"], redaction["redacts"]) == (redaction_id, event_id)
    redacted = next(e for e in (await bob.peek(since=None)).timeline(room_id) if e["event_id"] == event_id)
    assert redacted["content"] == {}
    assert redacted["unsigned"]["redacted_because"]["event_id"] == redaction_id
    assert redacted["unsigned"]["redacted_because"]["content"]["reason"] == "Oops"


async def test_relations_are_bundled_where_their_events_may_be_missing(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    root = await alice.send(room_id, "root")
    edit = {"msgtype": "m.text", "body": "* new", "m.new_content": {"msgtype": "m.text", "body": "new"}}
    edited = await alice.send_event(
        room_id, "m.room.message", {**edit, "m.relates_to": {"rel_type": "m.replace", "event_id": root}}
    )
    reply = await bob.send(room_id, "reply", **{"m.relates_to": {"rel_type": "m.thread", "event_id": root}})
    whole = (await bob.peek()).timeline(room_id)
    assert all("m.relations" not in event["unsigned"] for event in whole), "the client has all that relates to it"
    limited = (await bob.peek(since=None, filter=timeline_filter(limit=3))).timeline(room_id)
    relations = limited[0]["unsigned"]["m.relations"]
    assert relations["m.replace"]["event_id"] == edited
    assert relations["m.thread"]["latest_event"]["event_id"] == reply
    assert (relations["m.thread"]["count"], relations["m.thread"]["current_user_participated"]) == (1, True)
    assert types(limited) == ["m.room.message"] * 3


async def test_unread_notifications_of_threads_are_counted_apart_on_demand(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    root = await alice.send(room_id, "root")
    await alice.send(room_id, "reply", **{"m.relates_to": {"rel_type": "m.thread", "event_id": root}})
    room = (await bob.peek()).room(room_id)
    assert room["unread_notifications"]["notification_count"] == 2
    assert "unread_thread_notifications" not in room
    room = (await bob.sync(filter=timeline_filter(unread_thread_notifications=True))).room(room_id)
    assert room["unread_notifications"]["notification_count"] == 1
    assert room["unread_thread_notifications"] == {root: {"notification_count": 1, "highlight_count": 0}}
    await bob.read(room_id, root, receipt_type="m.read.private")
    room = (await bob.sync()).room(room_id)
    assert room["unread_notifications"]["notification_count"] == 1, "a private receipt is news, too"
