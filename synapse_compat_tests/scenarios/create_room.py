"""Creating rooms with every preset and option.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
"""

from typing import Any

from synapse_compat_tests.recording import Client, Stage
from synapse_compat_tests.scenarios.registry import scenario


async def create_and_look(creator: Client, **members: Any) -> None:
    """Creates a room, and reads all of its state."""
    room = await creator.create_room(**members)
    await creator.get(room.path + "/state")


@scenario
async def presets(stage: Stage) -> None:
    """Each preset with each visibility, and the state that they make."""
    alice = await stage.user("alice")
    for preset in (None, "private_chat", "public_chat", "trusted_private_chat"):
        for visibility in (None, "public", "private"):
            members = {"preset": preset, "visibility": visibility}
            await create_and_look(alice, **{name: value for name, value in members.items() if value is not None})


@scenario
async def room_versions(stage: Stage) -> None:
    """A room of each version."""
    alice, _ = await stage.users("alice", "bob")
    for version in range(1, 13):
        bob = stage.user_id("bob")
        await create_and_look(alice, room_version=str(version), preset="trusted_private_chat", invite=[bob])


@scenario
async def options(stage: Stage) -> None:
    """Everything that can be said of a new room."""
    alice, _ = await stage.users("alice", "bob")
    bob = stage.user_id("bob")
    await create_and_look(alice, name="Kitchen", topic="Soup")
    await create_and_look(alice, name="", topic="")
    await create_and_look(alice, room_alias_name=stage.localpart("kitchen"))
    await create_and_look(alice, invite=[bob], is_direct=True)
    await create_and_look(alice, invite=[bob], is_direct=True, preset="trusted_private_chat")
    await create_and_look(alice, creation_content={"m.federate": False, "type": "m.space", "org.example.x": 1})
    await create_and_look(alice, power_level_content_override={"events": {"m.room.name": 17}, "users_default": 5})
    await create_and_look(alice, power_level_content_override={"users": {bob: 75}}, preset="public_chat")
    encryption = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    await create_and_look(alice, initial_state=[encryption])
    rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    await create_and_look(alice, initial_state=[rules], preset="public_chat")
    topic = {"type": "m.room.topic", "content": {"topic": "of the state"}}
    await create_and_look(alice, initial_state=[topic], topic="of the request")
    levels = {"type": "m.room.power_levels", "content": {"users": {}, "ban": 99}}
    await create_and_look(alice, initial_state=[levels])


@scenario
async def options_of_old_rooms(stage: Stage) -> None:
    """What was otherwise before room version 12."""
    alice, _ = await stage.users("alice", "bob")
    bob = stage.user_id("bob")
    await create_and_look(alice, room_version="11", preset="trusted_private_chat", invite=[bob])
    await create_and_look(alice, room_version="10", creation_content={"creator": bob, "room_version": "1"})
    await create_and_look(alice, room_version="11", creation_content={"additional_creators": [bob]})


@scenario
async def further_creators(stage: Stage) -> None:
    """Room version 12 knows several creators."""
    alice, bob = await stage.users("alice", "bob")
    content = {"additional_creators": [bob.user_id]}
    await create_and_look(alice, creation_content=content, invite=[bob.user_id])
    await create_and_look(alice, creation_content=content, preset="trusted_private_chat", invite=[bob.user_id])
    for wrong in ("bob", [5], ["bob"], {"bob": True}, [bob.user_id, bob.user_id]):
        await alice.post("/createRoom", {"creation_content": {"additional_creators": wrong}})
    override = {"power_level_content_override": {"users": {alice.user_id: 100}}}
    await alice.post("/createRoom", override)


@scenario
async def rooms_that_are_refused(stage: Stage) -> None:
    """Options that do not do."""
    alice = await stage.user("alice")
    taken = stage.localpart("taken")
    await alice.post("/createRoom", {"room_alias_name": taken})
    for wrong in (
        {"room_alias_name": taken},
        {"room_alias_name": "#with:test"},
        {"room_alias_name": "with space"},
        {"room_alias_name": "x" * 300},
        {"room_version": "unheard of"},
        {"room_version": 10},
        {"preset": "unheard_of"},
        {"visibility": "unheard_of"},
        {"invite": ["nonsense"]},
        {"invite": "@bob:test"},
        {"name": 5},
        {"name": {"x": 1}},
        {"topic": ["x"]},
        {"creation_content": "x"},
        {"initial_state": {"type": "x"}},
        {"initial_state": [{"content": {}}]},
        {"initial_state": [{"type": "m.room.name", "content": "x"}]},
        {"initial_state": ["x"]},
        {"power_level_content_override": {"users": {"@bob:test": "high"}}},
        {"power_level_content_override": {"events": "x"}},
        {"power_level_content_override": "x"},
        {"power_level_content_override": {"users": {alice.user_id: 50}}, "room_version": "10"},
        {"name": "x" * 70_000},
    ):
        await alice.post("/createRoom", wrong)
    await alice.call("POST", "/createRoom", b"nonsense")
    await alice.call("POST", "/createRoom", b"[]")
    await alice.call("POST", "/createRoom", b"")
    await stage.anybody().post("/createRoom", {})
