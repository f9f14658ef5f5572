"""Who may do what to whose membership: every action in every state, by those with and without power.

https://spec.matrix.org/v1.19/client-server-api/#room-membership
"""

from synapse_compat_tests.recording import Client, Room, Stage
from synapse_compat_tests.scenarios.registry import scenario

MEMBERSHIPS = ("none", "invite", "join", "leave", "ban", "knock")
JOIN_RULES = ("public", "invite", "knock", "restricted", "knock_restricted", "private")


async def bring(owner: Client, room: Room, user: Client, membership: str) -> None:
    """Brings a user into a membership."""
    match membership:
        case "invite":
            await owner.act(room, "invite", user_id=user.user_id)
        case "join":
            await owner.act(room, "invite", user_id=user.user_id)
            await user.act(room, "join")
        case "leave":
            await owner.act(room, "invite", user_id=user.user_id)
            await user.act(room, "leave")
        case "ban":
            await owner.act(room, "ban", user_id=user.user_id, reason="Spam")
        case "knock":
            await user.post(f"/knock/{room.room_id}")


async def look(owner: Client, room: Room, user: Client) -> None:
    """Reads a membership."""
    await owner.get(room.state_path("m.room.member", user.user_id))


async def act_on_everybody(stage: Stage, actor_name: str) -> None:
    """Somebody tries every action on users in every state."""
    owner = await stage.user("owner")
    rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    room = await owner.create_room(initial_state=[rules])
    if actor_name == "owner":
        actor = owner
    else:
        actor = await stage.user(actor_name)
        if actor_name != "stranger":
            await bring(owner, room, actor, "join")
        if actor_name == "moderator":
            levels = (await owner.get(room.state_path("m.room.power_levels"))).body
            await owner.set_state(room, "m.room.power_levels", {**levels, "users": {actor.user_id: 50}})
    for membership in MEMBERSHIPS:
        for action in ("invite", "kick", "ban", "unban"):
            user = await stage.user(f"{membership}.{action}")
            await bring(owner, room, user, membership)
            await actor.act(room, action, user_id=user.user_id, reason="Because")
            await look(owner, room, user)


@scenario
async def acting_as_owner(stage: Stage) -> None:
    """The creator of the room."""
    await act_on_everybody(stage, "owner")


@scenario
async def acting_as_moderator(stage: Stage) -> None:
    """Somebody with power level 50."""
    await act_on_everybody(stage, "moderator")


@scenario
async def acting_as_member(stage: Stage) -> None:
    """Somebody without power."""
    await act_on_everybody(stage, "member")


@scenario
async def acting_as_stranger(stage: Stage) -> None:
    """Somebody who is not in the room."""
    await act_on_everybody(stage, "stranger")


@scenario
async def acting_on_oneself(stage: Stage) -> None:
    """Joining, knocking, leaving and forgetting in every state and under every join rule."""
    owner = await stage.user("owner")
    hall = await owner.create_room(preset="public_chat")
    for join_rule in JOIN_RULES:
        content = {"join_rule": join_rule}
        if "restricted" in join_rule:
            content["allow"] = [{"type": "m.room_membership", "room_id": hall.room_id}]  # type: ignore[assignment]
        room = await owner.create_room(initial_state=[{"type": "m.room.join_rules", "content": content}])
        for membership in MEMBERSHIPS:
            if membership == "knock" and "knock" not in join_rule:
                continue
            for action in ("join", "knock", "leave", "forget"):
                user = await stage.user(f"{join_rule}.{membership}.{action}")
                await bring(owner, room, user, membership)
                if action == "knock":
                    await user.post(f"/knock/{room.room_id}", {"reason": "Please"})
                else:
                    await user.act(room, action)
                await look(owner, room, user)


@scenario
async def joining_a_restricted_room(stage: Stage) -> None:
    """Members of another room may come in."""
    owner, member, stranger = await stage.users("owner", "member", "stranger")
    hall = await owner.create_room(preset="public_chat")
    await member.act(hall, "join")
    for version in ("8", "10", "12"):
        allow = [{"type": "m.room_membership", "room_id": hall.room_id}]
        rules = {"type": "m.room.join_rules", "content": {"join_rule": "restricted", "allow": allow}}
        room = await owner.create_room(initial_state=[rules], room_version=version)
        await stranger.act(room, "join")
        await member.act(room, "join")
        await owner.get(room.state_path("m.room.member", member.user_id))
        await owner.act(room, "kick", user_id=member.user_id)
        await member.act(room, "join")
        await owner.act(room, "ban", user_id=member.user_id)
        await member.act(room, "join")


@scenario
async def doing_it_twice(stage: Stage) -> None:
    """What is done already."""
    owner, user = await stage.users("owner", "user")
    room = await owner.create_room()
    for action in ("invite", "ban", "ban", "unban", "unban", "invite", "invite", "kick", "kick"):
        await owner.act(room, action, user_id=user.user_id)
    await owner.act(room, "invite", user_id=user.user_id)
    for action in ("join", "join", "leave", "leave", "forget", "forget", "join"):
        await user.act(room, action)
    await user.post(f"/join/{room.room_id}")


@scenario
async def the_last_member_leaves(stage: Stage) -> None:
    """Nobody is left."""
    owner, user = await stage.users("owner", "user")
    room = await owner.create_room(preset="public_chat")
    await owner.act(room, "leave")
    await owner.get(room.path + "/state")
    await owner.act(room, "join")
    await user.act(room, "join")
    await owner.act(room, "forget")
    await owner.get(room.path + "/state")


@scenario
async def requests_that_are_refused(stage: Stage) -> None:
    """Rooms that are none, users that are none, bodies that do not do."""
    owner, user = await stage.users("owner", "user")
    room = await owner.create_room()
    for action in ("join", "leave", "forget", "invite", "kick", "ban", "unban"):
        for room_id in ("!unheard:test", "nonsense", "#alias:test"):
            await owner.act(Room(room_id), action, user_id=user.user_id)
    for action in ("invite", "kick", "ban", "unban"):
        for body in ({}, {"user_id": 5}, {"user_id": "nonsense"}, {"user_id": "@UPPER:test"}):
            await owner.act(room, action, **body)
        await owner.act(room, action, user_id=user.user_id, reason=5)
        await owner.act(room, action, user_id=owner.user_id)
        await owner.call("POST", f"{room.path}/{action}", b"nonsense")
    for path in ("/join/nonsense", "/join/%23unheard:test", "/knock/nonsense", f"/knock/{room.room_id}"):
        await user.post(path)
    await stage.anybody().act(room, "join")


@scenario
async def membership_by_state_events(stage: Stage) -> None:
    """The same, by sending member events."""
    owner, user = await stage.users("owner", "user")
    room = await owner.create_room()
    await owner.set_state(room, "m.room.member", {"membership": "invite"}, user.user_id)
    await user.set_state(room, "m.room.member", {"membership": "join", "displayname": "Me"}, user.user_id)
    await look(owner, room, user)
    await user.set_state(room, "m.room.member", {"membership": "join"}, owner.user_id)
    await user.set_state(room, "m.room.member", {"membership": "ban"}, owner.user_id)
    await owner.set_state(room, "m.room.member", {"membership": "unheard_of"}, user.user_id)
    await owner.set_state(room, "m.room.member", {}, user.user_id)
    await owner.set_state(room, "m.room.member", {"membership": "invite"}, "nonsense")
    await owner.set_state(room, "m.room.member", {"membership": "ban"}, user.user_id)
    await look(owner, room, user)
