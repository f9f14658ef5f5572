"""Edits, reactions, references, threads.

https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events
"""

from typing import Any

from synapse_compat_tests.recording import Client, Room, Stage
from synapse_compat_tests.scenarios.registry import scenario


def related(event_id: str, rel_type: str, **more: Any) -> dict[str, Any]:
    """What says that an event relates to another."""
    return {"m.relates_to": {"event_id": event_id, "rel_type": rel_type, **more}}


async def react(client: Client, room: Room, event_id: str, key: str) -> None:
    """Sends a reaction, whatever comes of it."""
    content = related(event_id, "m.annotation", key=key)
    await client.put(room.send_path("m.reaction", client.stage.new_txn_id()), content)


@scenario
async def reactions(stage: Stage) -> None:
    """Each key once."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room(preset="public_chat")
    await bob.act(room, "join")
    event_id = await alice.send(room, "cake?")
    await react(bob, room, event_id, "👍")
    await react(bob, room, event_id, "👍")
    await react(bob, room, event_id, "🎂")
    await react(alice, room, event_id, "👍")
    await react(alice, room, "$unheard_of", "👍")
    path = f"/_matrix/client/v1{room.path}/relations/{event_id}"
    await alice.get(path)
    await alice.get(f"{path}/m.annotation")
    await alice.get(f"{path}/m.annotation/m.reaction", limit=2)
    await alice.get(f"{path}/m.annotation/m.unheard_of")
    await alice.get(room.event_path(event_id))


@scenario
async def edits(stage: Stage) -> None:
    """The newest edit of the sender counts."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room(preset="public_chat")
    await bob.act(room, "join")
    event_id = await alice.send(room, "cake?")
    for client, text in ((alice, "pie?"), (bob, "nothing"), (alice, "soup?")):
        new = {"m.new_content": {"msgtype": "m.text", "body": text}}
        await client.send(room, f"* {text}", **new, **related(event_id, "m.replace"))
    await bob.get(room.event_path(event_id))
    await bob.get(f"/_matrix/client/v1{room.path}/relations/{event_id}/m.replace")
    await bob.get(room.path + "/messages", dir="b", limit=5)
    await alice.put(f"{room.path}/redact/{event_id}/redact", {})
    await bob.get(room.event_path(event_id))


@scenario
async def references(stage: Stage) -> None:
    """Events that mention others."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room()
    event_id = await alice.send(room, "question")
    for number in range(3):
        await alice.send(room, f"answer {number}", **related(event_id, "m.reference"))
    path = f"/_matrix/client/v1{room.path}/relations/{event_id}"
    page = await alice.get(path, limit=2)
    await alice.get(path, limit=2, from_=page["next_batch"])
    await alice.get(path, limit=2, dir="f")
    await alice.get(room.event_path(event_id))
    await bob.get(path)
    await alice.get(f"/_matrix/client/v1{room.path}/relations/$unheard_of")
    await alice.get(path, limit="many")
    await alice.get(path, from_="nonsense")


@scenario
async def threads(stage: Stage) -> None:
    """Threads are formed, summarised and listed."""
    alice, bob, carol = await stage.users("alice", "bob", "carol")
    room = await alice.create_room(preset="public_chat")
    for client in (bob, carol):
        await client.act(room, "join")
    first, second = await alice.send(room, "first"), await alice.send(room, "second")
    for number in range(2):
        await bob.send(room, f"reply {number}", **related(first, "m.thread"))
    reply = await carol.send(room, "reply", **related(second, "m.thread"))
    await bob.put(room.send_path("m.room.message", "nested"), {"body": "x", **related(reply, "m.thread")})
    await bob.get(room.event_path(first))
    await bob.get(room.event_path(reply))
    path = f"/_matrix/client/v1{room.path}/threads"
    await bob.get(path)
    await bob.get(path, include="participated")
    page = await carol.get(path, limit=1)
    await carol.get(path, limit=1, from_=page["next_batch"])
    await carol.get(path, include="unheard_of")
    await carol.get(f"/_matrix/client/v1{room.path}/relations/{first}/m.thread", limit=1)
    await carol.sync()
