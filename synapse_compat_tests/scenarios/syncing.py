"""The sync: initial, incremental, limited, with filters, and for rooms that were left or not yet joined.

https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

import json
from typing import Any

from synapse_compat_tests.recording import Stage
from synapse_compat_tests.scenarios.registry import scenario

# The name of the specification, and that of the proposal.
STATE_AFTER = {"use_state_after": True, "org.matrix.msc4222.use_state_after": True}


def timeline_limit(limit: int, **room: Any) -> str:
    """A filter for short timelines."""
    return json.dumps({"room": {"timeline": {"limit": limit}, **room}})


@scenario
async def syncs(stage: Stage) -> None:
    """From nothing, and then what is new."""
    alice, bob = await stage.users("alice", "bob")
    since = (await alice.sync())["next_batch"]
    since = (await alice.sync(since))["next_batch"]
    room = await alice.create_room(preset="private_chat", name="Kitchen", invite=[bob.user_id])
    since = (await alice.sync(since))["next_batch"]
    invited = (await bob.sync())["next_batch"]
    await bob.act(room, "join")
    joined = (await bob.sync(invited))["next_batch"]
    since = (await alice.sync(since))["next_batch"]
    await alice.send(room, "hello")
    await alice.set_state(room, "m.room.topic", {"topic": "Soup"})
    since = (await alice.sync(since))["next_batch"]
    await bob.sync(joined)
    await alice.sync(since)
    await alice.sync()
    await alice.sync(since, full_state=True)


@scenario
async def limited_syncs(stage: Stage) -> None:
    """More happened than fits."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room(preset="public_chat")
    await bob.act(room, "join")
    since = (await bob.sync(filter=timeline_limit(3)))["next_batch"]
    await alice.set_state(room, "m.room.topic", {"topic": "In the gap"})
    for number in range(6):
        await alice.send(room, f"message {number}")
    await alice.set_state(room, "m.room.name", {"name": "In the timeline"})
    answer = await bob.sync(since, filter=timeline_limit(3))
    token = answer["rooms"]["join"][room.room_id]["timeline"]["prev_batch"]
    await bob.get(room.path + "/messages", dir="b", from_=token, limit=3)
    await bob.sync(filter=timeline_limit(1))
    await bob.sync(filter=timeline_limit(0))


@scenario
async def syncs_with_lazy_loading(stage: Stage) -> None:
    """Only those members who have said something."""
    alice, bob, carol = await stage.users("alice", "bob", "carol")
    room = await alice.create_room(preset="public_chat")
    for client in (bob, carol):
        await client.act(room, "join")
    for number in range(3):
        await bob.send(room, f"message {number}")
    lazy = timeline_limit(2, state={"lazy_load_members": True})
    since = (await alice.sync(filter=lazy))["next_batch"]
    await carol.send(room, "me too")
    since = (await alice.sync(since, filter=lazy))["next_batch"]
    await carol.send(room, "me three")
    await bob.send(room, "me four")
    since = (await alice.sync(since, filter=lazy))["next_batch"]
    redundant = timeline_limit(2, state={"lazy_load_members": True, "include_redundant_members": True})
    await carol.send(room, "me five")
    await alice.sync(since, filter=redundant)


@scenario
async def syncs_with_filters(stage: Stage) -> None:
    """Only what is asked for."""
    alice, bob = await stage.users("alice", "bob")
    room, other = await alice.create_room(name="One"), await alice.create_room(name="Two")
    await alice.send(room, "hello")
    await alice.send(other, "hello")
    await alice.put(f"/user/{alice.user_id}/account_data/org.example.one", {})
    for filter_json in (
        {"room": {"rooms": [room.room_id]}},
        {"room": {"not_rooms": [room.room_id]}},
        {"room": {"rooms": []}},
        {"room": {"timeline": {"types": ["m.room.message"]}, "state": {"types": []}}},
        {"room": {"timeline": {"not_types": ["m.room.*"]}, "state": {"not_types": ["m.room.*"]}}},
        {"room": {"timeline": {"senders": [bob.user_id]}}},
        {"account_data": {"types": ["org.example.*"]}, "room": {"rooms": []}},
        {"account_data": {"not_types": ["*"]}, "room": {"rooms": []}},
        {"event_fields": ["type", "content.body", "sender"], "room": {"rooms": [room.room_id]}},
    ):
        await alice.sync(filter=json.dumps(filter_json))
    stored = await alice.post(f"/user/{alice.user_id}/filter", {"room": {"timeline": {"limit": 1}}})
    await alice.sync(filter=stored["filter_id"])
    await alice.sync(filter="999999")
    await alice.sync(filter="{nonsense")
    await alice.sync(filter='{"room": 5}')


@scenario
async def syncs_of_rooms_that_were_left(stage: Stage) -> None:
    """Leaving, being kicked, banned, rejecting; once, and not again."""
    alice, bob = await stage.users("alice", "bob")
    leave = json.dumps({"room": {"include_leave": True}})
    rooms = [await alice.create_room(preset="public_chat") for _ in range(4)]
    for room in rooms[:3]:
        await bob.act(room, "join")
    await alice.act(rooms[3], "invite", user_id=bob.user_id)
    since = (await bob.sync())["next_batch"]
    await alice.send(rooms[0], "before")
    await bob.act(rooms[0], "leave")
    await alice.send(rooms[0], "after")
    await alice.act(rooms[1], "kick", user_id=bob.user_id)
    await alice.act(rooms[2], "ban", user_id=bob.user_id)
    await bob.act(rooms[3], "leave")
    next_batch = (await bob.sync(since))["next_batch"]
    await bob.sync(next_batch)
    await bob.sync()
    await bob.sync(filter=leave)
    await bob.act(rooms[0], "forget")
    await bob.sync(filter=leave)
    await bob.act(rooms[0], "join")
    await bob.sync(next_batch)


@scenario
async def syncs_of_invitations_and_knocks(stage: Stage) -> None:
    """Rooms that one is not in yet."""
    alice, bob = await stage.users("alice", "bob")
    await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alice"})
    rules = [{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]
    room = await alice.create_room(name="Kitchen", topic="Soup", initial_state=rules)
    since = (await bob.sync())["next_batch"]
    await bob.post(f"/knock/{room.room_id}", {"reason": "Please"})
    since = (await bob.sync(since))["next_batch"]
    await alice.act(room, "invite", user_id=bob.user_id, reason="Welcome")
    since = (await bob.sync(since))["next_batch"]
    await bob.sync()
    await alice.act(room, "kick", user_id=bob.user_id)
    await bob.sync(since)


@scenario
async def syncs_with_state_after(stage: Stage) -> None:
    """The state at the end of the timeline instead of the beginning."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room(preset="public_chat")
    await bob.act(room, "join")
    since = (await bob.sync(filter=timeline_limit(2), **STATE_AFTER))["next_batch"]
    for number in range(4):
        await alice.set_state(room, "m.room.topic", {"topic": f"Topic {number}"})
    await alice.set_state(room, "m.room.name", {"name": "Kitchen"})
    next_batch = (await bob.sync(since, filter=timeline_limit(2), **STATE_AFTER))["next_batch"]
    await bob.sync(next_batch, filter=timeline_limit(2), **STATE_AFTER)
    await bob.sync(since, filter=timeline_limit(2), **STATE_AFTER, full_state=True)


@scenario
async def summaries(stage: Stage) -> None:
    """Counts and heroes of a room without a name."""
    alice = await stage.user("alice")
    others = await stage.users(*(f"user{number}" for number in range(7)))
    room = await alice.create_room(preset="public_chat")
    since = (await alice.sync())["next_batch"]
    for other in others:
        await other.act(room, "join")
        since = (await alice.sync(since))["next_batch"]
    await others[0].act(room, "leave")
    since = (await alice.sync(since))["next_batch"]
    await alice.set_state(room, "m.room.name", {"name": "Now with a name"})
    await alice.sync(since)
    await alice.sync(filter=json.dumps({"room": {"state": {"lazy_load_members": True}}}))


@scenario
async def what_passes(stage: Stage) -> None:
    """Typing and receipts."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room(preset="public_chat")
    await bob.act(room, "join")
    first, second = await alice.send(room, "one"), await alice.send(room, "two")
    since = (await bob.sync())["next_batch"]
    mine = (await alice.sync())["next_batch"]
    typing = f"{room.path}/typing"
    await bob.put(f"{typing}/{bob.user_id}", {"typing": True, "timeout": 30_000})
    await bob.put(f"{typing}/{alice.user_id}", {"typing": True, "timeout": 30_000})
    await bob.put(f"{typing}/{bob.user_id}", {"typing": "yes"})
    await bob.put(f"{typing}/{bob.user_id}", {})
    mine = (await alice.sync(mine))["next_batch"]
    await bob.put(f"{typing}/{bob.user_id}", {"typing": False})
    mine = (await alice.sync(mine))["next_batch"]
    receipt = f"{room.path}/receipt"
    await bob.post(f"{receipt}/m.read/{first}", {})
    mine = (await alice.sync(mine))["next_batch"]
    await bob.post(f"{receipt}/m.read.private/{second}", {})
    await bob.post(f"{receipt}/m.read/{second}", {"thread_id": "main"})
    await bob.post(f"{receipt}/m.fully_read/{second}", {})
    await bob.post(f"{receipt}/m.unheard_of/{second}", {})
    await bob.post(f"{receipt}/m.read/{second}", {"thread_id": ""})
    await bob.post(f"{receipt}/m.read/{second}", {"thread_id": 5})
    mine = (await alice.sync(mine))["next_batch"]
    since = (await bob.sync(since))["next_batch"]
    await bob.post(f"{room.path}/read_markers", {"m.fully_read": first, "m.read": second})
    await bob.post(f"{room.path}/read_markers", {"m.fully_read": 5})
    await bob.post(f"{room.path}/read_markers", {})
    await bob.sync(since)
    stranger = await stage.user("stranger")
    await stranger.put(f"{typing}/{stranger.user_id}", {"typing": True, "timeout": 30_000})
    await stranger.post(f"{receipt}/m.read/{first}", {})
    await alice.sync()


@scenario
async def syncs_that_are_refused(stage: Stage) -> None:
    """Parameters that do not do."""
    alice = await stage.user("alice")
    await alice.sync("nonsense")
    await alice.get("/sync", timeout="long")
    await alice.get("/sync", timeout=-5)
    await alice.get("/sync", full_state="perhaps")
    await alice.get("/sync", set_presence="unheard_of")
    await alice.get("/sync", since="")
    await stage.anybody().sync()
