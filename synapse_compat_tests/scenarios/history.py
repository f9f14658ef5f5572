"""Paging through history, events in their context, members, visibility.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages
"""

import json

from synapse_compat_tests.recording import Stage
from synapse_compat_tests.scenarios.registry import scenario


@scenario
async def paging(stage: Stage) -> None:
    """Back to the beginning, and forth again."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room(preset="public_chat")
    await bob.act(room, "join")
    for number in range(9):
        await (alice, bob)[number % 2].send(room, f"message {number}")
    path = room.path + "/messages"
    page = await bob.get(path, dir="b", limit=4)
    for _ in range(6):
        if "end" not in page.body:
            break
        page = await bob.get(path, dir="b", limit=4, from_=page["end"])
    page = await bob.get(path, dir="f", limit=7)
    for _ in range(6):
        if "end" not in page.body:
            break
        page = await bob.get(path, dir="f", limit=7, from_=page["end"])
    token = (await alice.sync())["next_batch"]
    await alice.get(path, dir="b", limit=2, from_=token)
    await alice.get(path, dir="f", limit=2, from_=token)


@scenario
async def paging_with_filters(stage: Stage) -> None:
    """Only what is asked for."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room(preset="public_chat")
    await bob.act(room, "join")
    for number in range(4):
        await alice.send(room, f"message {number}")
        await bob.send(room, f"link {number}", url="https://example.org/")
    path = room.path + "/messages"
    for filter_json in (
        {"types": ["m.room.message"], "limit": 3},
        {"types": ["m.room.*"]},
        {"types": []},
        {"not_types": ["m.room.message"]},
        {"senders": [bob.user_id]},
        {"not_senders": [bob.user_id]},
        {"contains_url": True},
        {"contains_url": False},
        {"lazy_load_members": True, "types": ["m.room.message"]},
        {"rooms": ["!other:test"]},
    ):
        await alice.get(path, dir="b", limit=5, filter=json.dumps(filter_json))
    await alice.get(path, dir="b", filter="nonsense")
    await alice.get(path, dir="b", filter="{}")


@scenario
async def paging_that_is_refused(stage: Stage) -> None:
    """Parameters that do not do."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room()
    path = room.path + "/messages"
    await alice.get(path)
    await alice.get(path, dir="sideways")
    await alice.get(path, dir="b", limit="many")
    await alice.get(path, dir="b", limit=-1)
    await alice.get(path, dir="b", limit=0)
    await alice.get(path, dir="b", from_="nonsense")
    await alice.get(path, dir="b", to="nonsense")
    await bob.get(path, dir="b")
    await bob.get("/rooms/!unheard:test/messages", dir="b")
    await stage.anybody().get(path, dir="b")


@scenario
async def context(stage: Stage) -> None:
    """An event among its neighbours."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room(preset="public_chat")
    sent = [await alice.send(room, f"message {number}") for number in range(7)]
    await bob.act(room, "join")
    path = f"{room.path}/context"
    await bob.get(f"{path}/{sent[3]}", limit=4)
    await bob.get(f"{path}/{sent[3]}", limit=0)
    await bob.get(f"{path}/{sent[0]}", limit=3)
    await bob.get(f"{path}/{sent[6]}")
    await bob.get(f"{path}/{sent[3]}", limit=4, filter=json.dumps({"lazy_load_members": True}))
    await bob.get(f"{path}/{sent[3]}", limit=4, filter=json.dumps({"types": ["m.room.create"]}))
    await bob.get(f"{path}/$unheard_of")
    await bob.get(f"{path}/{sent[3]}", limit="many")
    (carol,) = await stage.users("carol")
    await carol.get(f"{path}/{sent[3]}")


@scenario
async def members(stage: Stage) -> None:
    """Who is, was, and may be in a room."""
    alice, bob, carol, dave = await stage.users("alice", "bob", "carol", "dave")
    room = await alice.create_room(preset="public_chat", invite=[carol.user_id])
    at = (await alice.sync())["next_batch"]
    await bob.act(room, "join")
    await alice.act(room, "ban", user_id=dave.user_id)
    path = room.path + "/members"
    await alice.get(path)
    await alice.get(path, membership="join")
    await alice.get(path, not_membership="join")
    await alice.get(path, membership="unheard_of")
    await alice.get(path, at=at)
    await alice.get(path, at="nonsense")
    await alice.get(room.path + "/joined_members")
    for client in (carol, dave, stage.anybody()):
        await client.get(path)
        await client.get(room.path + "/joined_members")
    await bob.get("/joined_rooms")
    await carol.get("/joined_rooms")


@scenario
async def visibility(stage: Stage) -> None:
    """What those see who came later, left, or were never there."""
    alice = await stage.user("alice")
    for setting in ("invited", "joined", "shared", "world_readable"):
        bob, carol, dave = await stage.users(f"bob.{setting}", f"carol.{setting}", f"dave.{setting}")
        state = [{"type": "m.room.history_visibility", "content": {"history_visibility": setting}}]
        room = await alice.create_room(preset="public_chat", initial_state=state)
        first = await alice.send(room, "before the invitation")
        await alice.act(room, "invite", user_id=bob.user_id)
        second = await alice.send(room, "before the join")
        await bob.act(room, "join")
        third = await alice.send(room, "while there")
        await carol.act(room, "join")
        await carol.act(room, "leave")
        fourth = await alice.send(room, "after carol left")
        for client in (bob, carol, dave):
            for event_id in (first, second, third, fourth):
                await client.get(room.event_path(event_id))
            await client.get(room.path + "/messages", dir="b", limit=20, filter='{"types": ["m.room.message"]}')
            await client.get(f"{room.path}/context/{third}", limit=2)
            await client.get(room.state_path("m.room.history_visibility"))


@scenario
async def finding_by_time(stage: Stage) -> None:
    """The event nearest to a moment."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room()
    sent = await alice.send(room, "hello")
    ts = (await alice.get(room.event_path(sent)))["origin_server_ts"]
    path = f"/_matrix/client/v1{room.path}/timestamp_to_event"
    await alice.get(path, ts=0, dir="f")
    await alice.get(path, ts=0, dir="b")
    await alice.get(path, ts=ts + 100_000, dir="b")
    await alice.get(path, ts=ts + 100_000, dir="f")
    await alice.get(path, ts="now", dir="f")
    await alice.get(path, dir="f")
    await alice.get(path, ts=0, dir="sideways")
    await bob.get(path, ts=0, dir="f")
