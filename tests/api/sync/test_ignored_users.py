"""Users who are ignored: what of them is still told.

https://spec.matrix.org/v1.19/client-server-api/#ignoring-users
"""

from tests.api.sync.api import Device, event_ids, timeline_filter, types


async def test_messages_are_hidden_and_state_is_not(alice: Device, bob: Device, carol: Device) -> None:
    room_id = await alice.create(bob, carol)
    await carol.send(room_id, "before")
    await bob.ignore(carol)
    sync = await bob.sync()
    assert sync.bodies(room_id) == []
    await alice.set_state(room_id, "m.room.power_levels", {"users": {carol.user_id: 50}})
    heard = await alice.send(room_id, "hello")
    await carol.send(room_id, "hello")
    name = await carol.rename(room_id, "Carol's")
    sync = await bob.sync()
    assert event_ids(sync.timeline(room_id))[1:] == [heard, name]
    assert sync.room(room_id)["timeline"]["limited"] is False
    await carol.send(room_id, "anybody?")
    assert (await bob.sync()).is_empty


async def test_they_do_not_push_others_out_of_the_timeline(alice: Device, bob: Device, carol: Device) -> None:
    room_id = await alice.create(bob, carol)
    await bob.ignore(carol)
    await bob.sync()
    sent = [await alice.send(room_id, f"{number}") for number in range(2)]
    for number in range(50):
        await carol.send(room_id, f"noise {number}")
    timeline = (await bob.sync(filter=timeline_filter(limit=2))).room(room_id)["timeline"]
    assert event_ids(timeline["events"]) == sent
    assert timeline["limited"] is False


async def test_their_invitations_are_hidden(alice: Device, bob: Device, carol: Device) -> None:
    await bob.sync()
    await bob.ignore(carol)
    hidden = await carol.create(preset="private_chat", invite=[bob.user_id])
    shown = await alice.create(preset="private_chat", invite=[bob.user_id])
    assert set((await bob.sync()).rooms("invite")) == {shown}
    assert set((await bob.peek(since=None)).rooms("invite")) == {shown}
    await bob.ignore()
    assert set((await bob.peek(since=None)).rooms("invite")) == {shown, hidden}


async def test_what_passes_is_hidden(alice: Device, bob: Device, carol: Device) -> None:
    room_id = await alice.create(bob, carol)
    event_id = await bob.send(room_id)
    await bob.ignore(carol)
    await bob.sync()
    for other in (alice, carol):
        await other.sync()
        await other.type(room_id)
        await other.read(room_id, event_id)
        await other.put(f"/presence/{other.user_id}/status", {"presence": "online", "status_msg": "here"})
    sync = await bob.sync()
    assert sync.ephemeral(room_id, "m.typing") == [{"user_ids": [alice.user_id]}]
    (receipts,) = sync.ephemeral(room_id, "m.receipt")
    assert set(receipts[event_id]["m.read"]) == {alice.user_id}
    assert carol.user_id not in sync.presence
    assert alice.user_id in sync.presence
    first = await bob.peek(since=None)
    assert carol.user_id not in first.presence
    assert first.ephemeral(room_id, "m.typing") == [{"user_ids": [alice.user_id]}]


async def test_listening_again_brings_what_comes_then(alice: Device, bob: Device, carol: Device) -> None:
    room_id = await alice.create(bob, carol)
    await bob.ignore(carol)
    await bob.sync()
    missed = await carol.send(room_id, "missed")
    await bob.sync()
    await bob.ignore()
    sync = await bob.sync()
    assert sync.account_data["m.ignored_user_list"] == {"ignored_users": {}}
    assert sync.timeline(room_id) == []
    heard = await carol.send(room_id, "heard")
    assert event_ids((await bob.sync()).timeline(room_id)) == [heard]
    assert missed in event_ids((await bob.peek(since=None)).timeline(room_id))


async def test_they_do_not_appear_in_aggregations(alice: Device, bob: Device, carol: Device) -> None:
    room_id = await alice.create(bob, carol)
    await bob.ignore(carol)
    root = await alice.send(room_id, "root")
    in_thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    heard = await alice.send(room_id, "heard", **in_thread)
    await carol.send(room_id, "noise", **in_thread)
    sync = await bob.peek(since=None, filter=timeline_filter(limit=2))
    assert types(sync.timeline(room_id)) == ["m.room.message"] * 2
    thread = sync.timeline(room_id)[0]["unsigned"]["m.relations"]["m.thread"]
    assert (thread["count"], thread["latest_event"]["event_id"]) == (1, heard)
