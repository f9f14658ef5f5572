"""Profiles, account data, tags, filters, tokens for others.

https://spec.matrix.org/v1.19/client-server-api/#profiles
"""

from synapse_compat_tests.recording import Stage
from synapse_compat_tests.scenarios.registry import scenario


@scenario
async def profiles(stage: Stage) -> None:
    """Names and pictures are set, read and removed."""
    alice, bob = await stage.users("alice", "bob")
    path = f"/profile/{alice.user_id}"
    await bob.get(path)
    await bob.get(f"{path}/displayname")
    await bob.get(f"{path}/avatar_url")
    await alice.put(f"{path}/displayname", {"displayname": "Alice"})
    await alice.put(f"{path}/avatar_url", {"avatar_url": "mxc://test/picture"})
    await bob.put(f"{path}/displayname", {"displayname": "Bob was here"})
    await stage.anybody().put(f"{path}/displayname", {"displayname": "Nobody"})
    await stage.anybody().get(path)
    await bob.get(f"{path}/displayname")
    await bob.get(f"{path}/avatar_url")
    await alice.put(f"{path}/displayname", {})
    await alice.put(f"{path}/displayname", {"displayname": 5})
    await alice.put(f"{path}/displayname", {"displayname": "x" * 300})
    await alice.put(f"{path}/avatar_url", {"avatar_url": "x" * 1200})
    await alice.put(f"{path}/avatar_url", {"avatar_url": 5})
    await alice.put(f"{path}/displayname", {"displayname": ""})
    await bob.get(path)
    await bob.get("/profile/@nobody:test")
    await bob.get("/profile/nobody")
    await bob.get("/profile/@nobody:test/displayname")


@scenario
async def profile_fields(stage: Stage) -> None:
    """Fields beyond name and picture."""
    alice, bob = await stage.users("alice", "bob")
    path = f"/profile/{alice.user_id}"
    await alice.put(f"{path}/m.tz", {"m.tz": "Europe/London"})
    await alice.put(f"{path}/org.example.pets", {"org.example.pets": ["cat", {"name": "dog"}]})
    await bob.get(path)
    await bob.get(f"{path}/m.tz")
    await bob.get(f"{path}/org.example.unset")
    await alice.put(f"{path}/m.tz", {"other": "Europe/London"})
    await alice.put(f"{path}/m.tz", {"m.tz": "Europe/London", "other": 1})
    await bob.put(f"{path}/m.tz", {"m.tz": "Mars"})
    await alice.put(f"{path}/Wrong Name", {"Wrong Name": 1})
    await alice.put(f"{path}/{'x' * 300}", {"x" * 300: 1})
    await alice.put(f"{path}/org.example.large", {"org.example.large": "x" * 70_000})
    await bob.delete(f"{path}/m.tz")
    await alice.delete(f"{path}/m.tz")
    await alice.delete(f"{path}/m.tz")
    await alice.delete(f"{path}/displayname")
    await bob.get(path)


@scenario
async def profiles_in_rooms(stage: Stage) -> None:
    """A new name is told to the rooms of its user."""
    alice, bob = await stage.users("alice", "bob")
    await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alice"})
    room = await alice.create_room(preset="public_chat")
    await bob.act(room, "join")
    since = (await bob.sync())["next_batch"]
    await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alice Liddell"})
    await alice.put(f"/profile/{alice.user_id}/avatar_url", {"avatar_url": "mxc://test/picture"})
    await bob.sync(since)
    await bob.get(room.state_path("m.room.member", alice.user_id))
    await bob.get(room.path + "/joined_members")


@scenario
async def account_data(stage: Stage) -> None:
    """What a client keeps on the server for itself."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room()
    since = (await alice.sync())["next_batch"]
    user, in_room = f"/user/{alice.user_id}", f"/user/{alice.user_id}{room.path}"
    for path in (user, in_room):
        await alice.get(f"{path}/account_data/org.example.one")
        await alice.put(f"{path}/account_data/org.example.one", {"number": 1})
        await alice.get(f"{path}/account_data/org.example.one")
        await bob.get(f"{path}/account_data/org.example.one")
        await bob.put(f"{path}/account_data/org.example.one", {"number": 2})
        await alice.put(f"{path}/account_data/m.fully_read", {"event_id": "$x"})
        await alice.call("PUT", f"{path}/account_data/org.example.one", b"[1]")
        await alice.call("PUT", f"{path}/account_data/org.example.one", b"nonsense")
        await alice.put(f"{path}/account_data/org.example.empty", {})
        await alice.get(f"{path}/account_data/org.example.empty")
    await alice.put(f"{user}/account_data/m.push_rules", {})
    await alice.get(f"{user}/account_data/m.push_rules")
    await alice.get(f"{user}/rooms/!unheard:of/account_data/org.example.one")
    await alice.put(f"{user}/rooms/!unheard:of/account_data/org.example.one", {})
    await alice.put(f"{user}/rooms/nonsense/account_data/org.example.one", {})
    await alice.sync(since)
    await alice.sync()


@scenario
async def tags(stage: Stage) -> None:
    """Rooms are tagged."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room()
    since = (await alice.sync())["next_batch"]
    path = f"/user/{alice.user_id}{room.path}/tags"
    await alice.get(path)
    await alice.put(f"{path}/m.favourite", {"order": 0.25})
    await alice.put(f"{path}/u.work", {})
    await alice.put(f"{path}/u.odd", {"order": "high"})
    await alice.put(f"{path}/u.more", {"order": 1, "other": "x"})
    await alice.get(path)
    await bob.get(path)
    await bob.put(f"{path}/u.mine", {})
    await alice.sync(since)
    await alice.delete(f"{path}/u.work")
    await alice.delete(f"{path}/u.unheard_of")
    await alice.get(path)


@scenario
async def filters(stage: Stage) -> None:
    """Filters are stored and read."""
    alice, bob = await stage.users("alice", "bob")
    path = f"/user/{alice.user_id}/filter"
    whole = {
        "room": {
            "timeline": {"limit": 10, "types": ["m.room.*"], "not_senders": ["@spam:test"]},
            "state": {"lazy_load_members": True, "include_redundant_members": False},
            "ephemeral": {"not_types": ["m.typing"]},
            "rooms": ["!a:test"],
            "not_rooms": ["!b:test"],
            "include_leave": True,
        },
        "presence": {"types": []},
        "account_data": {"limit": 5},
        "event_fields": ["type", "content.body"],
        "event_format": "client",
    }
    stored = await alice.post(path, whole)
    await alice.get(f"{path}/{stored['filter_id']}")
    await bob.get(f"{path}/{stored['filter_id']}")
    await bob.post(path, whole)
    again = await alice.post(path, {})
    await alice.get(f"{path}/{again['filter_id']}")
    await alice.get(f"{path}/999999")
    await alice.get(f"{path}/nonsense")
    for wrong in (
        {"room": {"timeline": {"limit": "ten"}}},
        {"room": {"timeline": {"types": "m.room.message"}}},
        {"room": {"rooms": ["not a room"]}},
        {"room": {"timeline": {"senders": ["not a user"]}}},
        {"event_format": "unheard_of"},
        {"event_fields": "type"},
        {"room": 5},
    ):
        await alice.post(path, wrong)
    await alice.call("POST", path, b"[]")


@scenario
async def openid(stage: Stage) -> None:
    """A token with which others can find out who a user is."""
    alice, bob = await stage.users("alice", "bob")
    await alice.post(f"/user/{alice.user_id}/openid/request_token")
    await bob.post(f"/user/{alice.user_id}/openid/request_token")


@scenario
async def what_the_server_says_of_itself(stage: Stage) -> None:
    """Capabilities, and who one is."""
    alice = await stage.user("alice")
    await alice.get("/capabilities")
    await stage.anybody().get("/capabilities")
    await alice.get("/account/whoami")
    await alice.get("/account/3pid")
    await alice.get("/voip/turnServer")
    await alice.get("/thirdparty/protocols")
    await alice.get("/pushers")
    await alice.get("/notifications")
