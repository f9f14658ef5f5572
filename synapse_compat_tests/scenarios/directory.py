"""Aliases, the directory of public rooms, upgrades, spaces, summaries.

https://spec.matrix.org/v1.19/client-server-api/#room-aliases
"""

from urllib.parse import quote

from synapse_compat_tests.recording import Room, Stage
from synapse_compat_tests.scenarios.registry import scenario


@scenario
async def aliases(stage: Stage) -> None:
    """Aliases are made, followed and removed."""
    alice, bob, carol = await stage.users("alice", "bob", "carol")
    room = await alice.create_room(preset="public_chat")
    await bob.act(room, "join")
    alias = f"#{stage.localpart('kitchen')}:test"
    path = f"/directory/room/{quote(alias)}"
    await alice.put(path, {"room_id": room.room_id})
    await alice.put(path, {"room_id": room.room_id})
    await stage.anybody().get(path)
    await bob.get(f"{room.path}/aliases")
    await carol.get(f"{room.path}/aliases")
    await alice.set_state(room, "m.room.canonical_alias", {"alias": alias, "alt_aliases": [alias]})
    await carol.post(f"/join/{quote(alias)}")
    await bob.delete(path)
    await alice.delete(path)
    await alice.delete(path)
    await stage.anybody().get(path)
    await alice.get(room.state_path("m.room.canonical_alias"))
    await bob.put(path, {"room_id": room.room_id})
    await bob.delete(path)
    for wrong in ("nonsense", "#other:elsewhere.example", "#:test", f"#{'x' * 300}:test"):
        await alice.put(f"/directory/room/{quote(wrong)}", {"room_id": room.room_id})
        await alice.get(f"/directory/room/{quote(wrong)}") if "elsewhere" not in wrong else None
    for body in ({}, {"room_id": 5}, {"room_id": "nonsense"}, {"room_id": "!unheard:test"}):
        await alice.put(path, body)


@scenario
async def public_rooms(stage: Stage) -> None:
    """Rooms are published, found and withdrawn."""
    alice, bob = await stage.users("alice", "bob")
    word = "zucchini"
    rooms = [
        await alice.create_room(visibility="public", preset="public_chat", name=f"{word} {name}", topic=f"About {name}")
        for name in ("one", "two", "three")
    ]
    for room in rooms[1:]:
        await bob.act(room, "join")
    space = await alice.create_room(visibility="public", name=f"{word} space", creation_content={"type": "m.space"})
    search = {"filter": {"generic_search_term": word}}
    await stage.anybody().get("/publicRooms", limit=1000)
    await bob.post("/publicRooms", search)
    await bob.post("/publicRooms", {"filter": {"generic_search_term": word, "room_types": ["m.space"]}})
    await bob.post("/publicRooms", {"filter": {"generic_search_term": word, "room_types": [None]}})
    await bob.post("/publicRooms", {"filter": {"generic_search_term": "unheard of"}})
    page = await bob.post("/publicRooms", {"limit": 2, **search})
    await bob.post("/publicRooms", {"limit": 2, "since": page["next_batch"], **search})
    path = f"/directory/list/room/{space.room_id}"
    await stage.anybody().get(path)
    await bob.put(path, {"visibility": "private"})
    await alice.put(path, {"visibility": "private"})
    await stage.anybody().get(path)
    await alice.put(path, {"visibility": "unheard_of"})
    await alice.put(path, {"visibility": 5})
    await alice.put(path, {})
    await bob.post("/publicRooms", search)
    await bob.get("/directory/list/room/!unheard:test")
    await bob.post("/publicRooms", {"limit": "many"})
    await bob.post("/publicRooms", {"limit": -1})
    await bob.post("/publicRooms", {"filter": "nonsense"})
    await bob.post("/publicRooms", {"since": "nonsense"})
    await bob.get("/publicRooms", limit="many")


@scenario
async def upgrades(stage: Stage) -> None:
    """A room is replaced by one of another version."""
    alice, bob = await stage.users("alice", "bob")
    for old, new in (("9", "10"), ("10", "12"), ("12", "12")):
        room = await alice.create_room(
            room_version=old,
            preset="public_chat",
            name="Kitchen",
            topic="Soup",
            power_level_content_override={"kick": 60},
        )
        await bob.act(room, "join")
        banned = await stage.user(f"banned.{old}.{new}")
        await alice.act(room, "ban", user_id=banned.user_id)
        await bob.post(f"{room.path}/upgrade", {"new_version": new})
        replacement = Room((await alice.post(f"{room.path}/upgrade", {"new_version": new}))["replacement_room"])
        await alice.get(replacement.path + "/state")
        await alice.get(room.state_path("m.room.tombstone"))
        await alice.get(room.state_path("m.room.power_levels"))
        await bob.put(room.send_path("m.room.message", f"late{old}"), {"msgtype": "m.text", "body": "Too late"})
    await alice.post(f"{room.path}/upgrade", {"new_version": "unheard of"})
    await alice.post(f"{room.path}/upgrade", {})
    await alice.post(f"{room.path}/upgrade", {"new_version": 5})
    await alice.post("/rooms/!unheard:test/upgrade", {"new_version": "12"})


@scenario
async def spaces(stage: Stage) -> None:
    """What a space holds."""
    alice, bob = await stage.users("alice", "bob")
    space = await alice.create_room(preset="public_chat", name="House", creation_content={"type": "m.space"})
    names = ("Kitchen", "Cellar", "Attic")
    rooms = [await alice.create_room(preset="public_chat", name=name) for name in names]
    secret = await alice.create_room(name="Secret")
    for number, room in enumerate((*rooms, secret)):
        content = {"via": ["test"], "order": str(number), "suggested": number == 0}
        await alice.set_state(space, "m.space.child", content, room.room_id)
    await alice.set_state(space, "m.space.child", {}, rooms[2].room_id)
    path = f"/_matrix/client/v1{space.path}/hierarchy"
    await alice.get(path)
    await bob.get(path)
    await bob.get(path, suggested_only=True)
    await bob.get(path, max_depth=0)
    page = await bob.get(path, limit=2)
    await bob.get(path, limit=2, from_=page["next_batch"])
    await bob.get(path, from_="nonsense")
    await bob.get(f"/_matrix/client/v1{secret.path}/hierarchy")
    await bob.get("/_matrix/client/v1/rooms/!unheard:test/hierarchy")


@scenario
async def room_summaries(stage: Stage) -> None:
    """What one may know of a room before joining it."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room(preset="public_chat", name="Kitchen", topic="Soup")
    secret = await alice.create_room(name="Secret")
    for client in (alice, bob, stage.anybody()):
        for subject in (room, secret):
            await client.get(f"/_matrix/client/v1/room_summary/{quote(subject.room_id)}")
    await bob.get("/_matrix/client/v1/room_summary/!unheard:test")
    await bob.get("/_matrix/client/v1/room_summary/nonsense")
