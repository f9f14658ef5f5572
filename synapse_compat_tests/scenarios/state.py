"""Reading and writing state, power levels, sending, redacting.

https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room
"""

from synapse_compat_tests.recording import Room, Stage
from synapse_compat_tests.scenarios.registry import scenario


@scenario
async def state_events(stage: Stage) -> None:
    """State is set and read, by members and by those who are none."""
    alice, bob, carol = await stage.users("alice", "bob", "carol")
    room = await alice.create_room(preset="private_chat", invite=[bob.user_id])
    await alice.set_state(room, "m.room.topic", {"topic": "Soup"})
    await alice.set_state(room, "m.room.topic", {"topic": "Soup"})
    await alice.set_state(room, "org.example.thing", {"number": 1}, "key/with slash")
    await alice.get(room.state_path("m.room.topic"))
    await alice.get(room.state_path("m.room.topic") + "?format=event")
    await alice.get(room.state_path("org.example.thing", "key/with slash"))
    await alice.get(f"{room.path}/state/m.room.topic")
    await alice.get(room.state_path("m.room.unheard_of"))
    await alice.get(room.state_path("m.room.topic", "unheard of"))
    await alice.get(room.path + "/state")
    for client in (bob, carol, stage.anybody()):
        await client.get(room.path + "/state")
        await client.get(room.state_path("m.room.topic"))
        await client.set_state(room, "m.room.topic", {"topic": "Mine"})
    await alice.get(Room("!unheard:test").path + "/state")


@scenario
async def state_after_leaving(stage: Stage) -> None:
    """Who has left sees the state of that time."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room(preset="public_chat", name="Before")
    await bob.act(room, "join")
    await bob.act(room, "leave")
    await alice.set_state(room, "m.room.name", {"name": "After"})
    await bob.get(room.path + "/state")
    await bob.get(room.state_path("m.room.name"))
    await bob.get(room.path + "/members")
    await bob.get(room.path + "/joined_members")


@scenario
async def state_that_is_refused(stage: Stage) -> None:
    """Bodies that do not do."""
    alice = await stage.user("alice")
    room = await alice.create_room()
    await alice.set_state(room, "m.room.create", {"room_version": "12"})
    await alice.set_state(room, "m.room.power_levels", {"users": {"@bob:test": "high"}})
    await alice.set_state(room, "m.room.power_levels", {"users": {"bob": 5}})
    await alice.set_state(room, "m.room.power_levels", {"users": {"@bob:test": 1.5}})
    await alice.set_state(room, "m.room.power_levels", {"ban": None})
    await alice.set_state(room, "org.example.thing", {"x": 1.5})
    await alice.set_state(room, "org.example.thing", {"x": 2**53})
    await alice.set_state(room, "org.example.thing", {"x": "y" * 70_000})
    await alice.set_state(room, "org.example.thing", {}, "@somebody:test")
    await alice.set_state(room, "org.example.thing", {}, "@nonsense")
    await alice.set_state(room, "org.example.thing", {}, "k" * 300)
    await alice.set_state(room, "t" * 300, {})
    await alice.set_state(room, "m.room.canonical_alias", {"alias": "#unheard.of:test"})
    await alice.set_state(room, "m.room.canonical_alias", {"alias": "nonsense"})
    await alice.set_state(room, "m.room.canonical_alias", {"alt_aliases": ["#unheard.of:test"]})
    await alice.set_state(room, "m.room.canonical_alias", {"alt_aliases": "nonsense"})
    await alice.set_state(room, "m.room.canonical_alias", {})
    for body in (b"", b"[]", b"nonsense", b'"x"', b'{"x": NaN}'):
        await alice.call("PUT", room.state_path("org.example.thing"), body)


@scenario
async def power_levels(stage: Stage) -> None:
    """Who may change whose power."""
    alice, bob, carol = await stage.users("alice", "bob", "carol")
    for version in ("10", "12"):
        room = await alice.create_room(room_version=version, preset="public_chat")
        for client in (bob, carol):
            await client.act(room, "join")
        levels = (await alice.get(room.state_path("m.room.power_levels"))).body
        mine = {alice.user_id: 100} if version == "10" else {}

        async def change(client, users, room=room, levels=levels, **more):  # type: ignore[no-untyped-def]
            await client.set_state(room, "m.room.power_levels", {**levels, "users": users, **more})

        await change(bob, {**mine, bob.user_id: 100})
        await change(alice, {**mine, bob.user_id: 50})
        await change(bob, {**mine, bob.user_id: 50, carol.user_id: 50})
        await change(bob, {**mine, bob.user_id: 50, carol.user_id: 51})
        await change(bob, {**mine, bob.user_id: 50})
        await change(bob, {**mine, bob.user_id: 50, carol.user_id: 40}, kick=60)
        await change(bob, {**mine, bob.user_id: 50, carol.user_id: 40}, kick=40)
        await carol.act(room, "kick", user_id=bob.user_id)
        await bob.act(room, "kick", user_id=carol.user_id)
        await change(bob, {**mine})
        await change(bob, {**mine, bob.user_id: 50})
        await change(alice, {alice.user_id: 100})
        await change(alice, {**mine, bob.user_id: 2**53})
        await alice.get(room.state_path("m.room.power_levels"))


@scenario
async def events_with_levels(stage: Stage) -> None:
    """Which events need which power."""
    alice, bob = await stage.users("alice", "bob")
    override = {"events": {"org.example.rare": 30, "m.room.name": 0}, "events_default": 10, "state_default": 20}
    room = await alice.create_room(preset="public_chat", power_level_content_override=override)
    await bob.act(room, "join")
    text = {"msgtype": "m.text", "body": "hello"}
    await bob.put(room.send_path("m.room.message", "one"), text)
    await bob.set_state(room, "m.room.name", {"name": "Bob's"})
    await bob.set_state(room, "m.room.topic", {"topic": "Bob's"})
    levels = (await alice.get(room.state_path("m.room.power_levels"))).body
    await alice.set_state(room, "m.room.power_levels", {**levels, "users": {bob.user_id: 20}})
    await bob.put(room.send_path("m.room.message", "two"), text)
    await bob.put(room.send_path("org.example.rare", "three"), {})
    await bob.set_state(room, "m.room.topic", {"topic": "Bob's"})


@scenario
async def sending(stage: Stage) -> None:
    """Messages are sent, repeated, refused, and read."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room()
    text = {"msgtype": "m.text", "body": "hello"}
    sent = await alice.put(room.send_path("m.room.message", "one"), text)
    await alice.put(room.send_path("m.room.message", "one"), text)
    await alice.put(room.send_path("m.room.message", "one"), {**text, "body": "other"})
    await alice.put(room.send_path("org.example.any", "two"), {"x": [None, True, -5, {"y": ""}]})
    await alice.get(room.event_path(sent["event_id"]))
    await bob.get(room.event_path(sent["event_id"]))
    await alice.get(room.event_path("$unheard_of"))
    await bob.put(room.send_path("m.room.message", "three"), text)
    await alice.put(Room("!unheard:test").send_path("m.room.message", "four"), text)
    await alice.put(Room("nonsense").send_path("m.room.message", "five"), text)
    for number, body in enumerate((b"", b"[]", b"nonsense", b'{"x": 1.5}', b'{"x": 9007199254740993}', b'{"x": NaN}')):
        await alice.call("PUT", room.send_path("m.room.message", f"bad{number}"), body)
    await alice.put(room.send_path("m.room.message", "large"), {**text, "body": "x" * 70_000})
    await alice.put(room.send_path("t" * 300, "long"), text)
    await alice.put(room.send_path("m.room.member", "state"), {"membership": "join"})


@scenario
async def redacting(stage: Stage) -> None:
    """Events lose their content."""
    alice, bob, carol = await stage.users("alice", "bob", "carol")
    for version in ("10", "12"):
        room = await alice.create_room(room_version=version, preset="public_chat", name="Kitchen")
        for client in (bob, carol):
            await client.act(room, "join")
        mine, hers = await bob.send(room, "mine"), await alice.send(room, "hers")
        redact = f"{room.path}/redact"
        await carol.put(f"{redact}/{mine}/one", {})
        await bob.put(f"{redact}/{mine}/two", {"reason": "Oops"})
        await bob.put(f"{redact}/{mine}/two", {"reason": "Oops"})
        await bob.put(f"{redact}/{hers}/three", {})
        await alice.put(f"{redact}/{hers}/four", {})
        await carol.get(room.event_path(mine))
        await carol.get(room.event_path(hers))
        await bob.put(f"{redact}/$unheard_of/five", {})
        state = (await alice.get(room.state_path("m.room.name") + "?format=event"))["event_id"]
        await alice.put(f"{redact}/{state}/seven", {})
        await alice.get(room.state_path("m.room.name"))
        await carol.get(room.path + "/messages", dir="b", limit=4)
        await bob.put(f"{redact}/{mine}/six", {"reason": 5})
