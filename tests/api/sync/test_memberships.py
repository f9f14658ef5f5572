"""Coming and going: in which section a room appears, and how much of it is shown."""

from tests.api.sync.api import Device, event_ids, lazy_filter, timeline_filter, types


async def test_a_room_that_was_joined_comes_whole(alice: Device, bob: Device) -> None:
    room_id = await alice.create(name="Kitchen")
    for number in range(12):
        await alice.send(room_id, f"{number}")
    await bob.sync()
    await bob.act(room_id, "join")
    sync = await bob.sync()
    room = sync.room(room_id)
    assert room["timeline"]["limited"] is True
    assert len(room["timeline"]["events"]) == 10
    assert sync.state(room_id)["m.room.name", ""]["content"] == {"name": "Kitchen"}
    assert "summary" in room
    assert sync.rooms("invite") == sync.rooms("leave") == {}
    assert (await bob.sync()).is_empty


async def test_an_invitation(alice: Device, bob: Device) -> None:
    await bob.sync()
    room_id = await alice.create(preset="private_chat", name="Kitchen", invite=[bob.user_id])
    await alice.send(room_id, "secret")
    sync = await bob.sync()
    assert sync.rooms() == {}
    events = sync.room(room_id, "invite")["invite_state"]["events"]
    assert all(set(event) == {"type", "state_key", "sender", "content"} for event in events)
    told = {(event["type"], event["state_key"]): event["content"] for event in events}
    assert told["m.room.name", ""] == {"name": "Kitchen"}
    assert told["m.room.member", bob.user_id]["membership"] == "invite"
    assert "m.room.message" not in types(events)
    await alice.rename(room_id, "Bath")
    await alice.send(room_id, "secret")
    assert (await bob.sync()).is_empty, "what happens there is not the invited user's business"
    assert set((await bob.peek(since=None)).rooms("invite")) == {room_id}
    await bob.act(room_id, "join")
    sync = await bob.sync()
    assert sync.rooms("invite") == {}
    assert sync.state(room_id) or sync.timeline(room_id)


async def test_an_invitation_that_is_refused_or_withdrawn(alice: Device, bob: Device) -> None:
    refused_id = await alice.create(preset="private_chat", invite=[bob.user_id])
    withdrawn_id = await alice.create(preset="private_chat", invite=[bob.user_id])
    await bob.sync()
    await bob.act(refused_id, "leave")
    await alice.send(withdrawn_id, "secret")
    await alice.act(withdrawn_id, "kick", user_id=bob.user_id, reason="Mistake")
    sync = await bob.sync()
    assert set(sync.rooms("leave")) == {refused_id, withdrawn_id}
    for room_id in (refused_id, withdrawn_id):
        (event,) = sync.timeline(room_id, "leave")
        assert (event["state_key"], event["content"]["membership"]) == (bob.user_id, "leave")
        assert sync.state(room_id, "leave") == {}
    assert (await bob.sync()).is_empty


async def test_an_invitation_that_is_refused_before_it_was_told(alice: Device, bob: Device) -> None:
    await bob.sync()
    room_id = await alice.create(preset="private_chat", invite=[bob.user_id])
    await bob.act(room_id, "leave")
    sync = await bob.sync()
    assert sync.rooms("invite") == {}
    assert [event["content"]["membership"] for event in sync.timeline(room_id, "leave")] == ["leave"]


async def test_a_knock(alice: Device, bob: Device) -> None:
    room_id = await alice.create(preset="private_chat", name="Kitchen")
    await alice.set_state(room_id, "m.room.join_rules", {"join_rule": "knock"})
    await bob.sync()
    await bob.post(f"/knock/{room_id}", {"reason": "Hungry"})
    sync = await bob.sync()
    events = sync.room(room_id, "knock")["knock_state"]["events"]
    told = {(event["type"], event["state_key"]): event["content"] for event in events}
    assert told["m.room.name", ""] == {"name": "Kitchen"}
    assert told["m.room.member", bob.user_id]["membership"] == "knock"
    assert set((await bob.peek(since=None)).rooms("knock")) == {room_id}
    await alice.act(room_id, "kick", user_id=bob.user_id)
    sync = await bob.sync()
    assert sync.rooms("knock") == {}
    assert len(sync.timeline(room_id, "leave")) == 1


async def test_leaving_ends_the_timeline(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    await alice.send(room_id, "before")
    await alice.rename(room_id, "Kitchen")
    await bob.act(room_id, "leave")
    await alice.send(room_id, "after")
    await alice.set_state(room_id, "m.room.topic", {"topic": "Secret"})
    await alice.type(room_id)
    for query in ({}, {"filter": lazy_filter()}, {"use_state_after": True}):
        sync = await bob.peek(**query)
        assert sync.rooms() == {}
        assert types(sync.timeline(room_id, "leave")) == ["m.room.message", "m.room.name", "m.room.member"]
        assert sync.room(room_id, "leave")["timeline"]["limited"] is False
        member = "state_after" if "use_state_after" in query else "state"
        assert ("m.room.topic", "") not in sync.state(room_id, "leave", member=member)
    await bob.sync()
    await alice.send(room_id, "more")
    assert (await bob.sync()).is_empty


async def test_leaving_after_a_gap_tells_the_state_that_it_hides(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    await alice.rename(room_id, "Kitchen")
    for number in range(4):
        await alice.send(room_id, f"{number}")
    await bob.act(room_id, "leave")
    await alice.rename(room_id, "Secret")
    sync = await bob.peek(filter=timeline_filter(limit=2))
    assert sync.bodies(room_id, "leave") == ["3"]
    assert sync.room(room_id, "leave")["timeline"]["limited"] is True
    assert {key: event["content"] for key, event in sync.state(room_id, "leave").items()} == {
        ("m.room.name", ""): {"name": "Kitchen"}
    }
    sync = await bob.peek(filter=timeline_filter(limit=2), use_state_after=True)
    state = sync.state(room_id, "leave", member="state_after")
    assert state["m.room.name", ""]["content"] == {"name": "Kitchen"}
    assert state["m.room.member", bob.user_id]["content"]["membership"] == "leave"
    sync = await bob.peek(filter=timeline_filter(types=["m.room.message"], limit=2))
    assert sync.state(room_id, "leave")["m.room.member", bob.user_id]["content"]["membership"] == "leave"


async def test_a_ban(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    await alice.act(room_id, "ban", user_id=bob.user_id, reason="Noise")
    await alice.send(room_id, "after")
    (event,) = (await bob.sync()).timeline(room_id, "leave")
    assert event["content"] == {"membership": "ban", "reason": "Noise"}
    await alice.act(room_id, "unban", user_id=bob.user_id)
    (event,) = (await bob.sync()).timeline(room_id, "leave")
    assert event["content"]["membership"] == "leave"


async def test_rooms_that_are_forgotten_are_not_told(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    await bob.act(room_id, "leave")
    await bob.act(room_id, "forget")
    assert (await bob.sync()).is_empty
    await alice.act(room_id, "invite", user_id=bob.user_id)
    assert set((await bob.sync()).rooms("invite")) == {room_id}
    await bob.act(room_id, "join")
    assert set((await bob.sync()).rooms()) == {room_id}


async def test_joined_and_left_within_one_window(alice: Device, bob: Device) -> None:
    room_id = await alice.create(name="Kitchen")
    await alice.send(room_id, "old")
    await bob.sync()
    await bob.act(room_id, "join")
    await alice.send(room_id, "seen")
    await bob.act(room_id, "leave")
    await alice.send(room_id, "after")
    sync = await bob.sync()
    assert sync.rooms() == {}
    assert sync.bodies(room_id, "leave") == ["old", "seen"], "its history is shared with those who join"
    assert sync.timeline(room_id, "leave")[-1]["content"]["membership"] == "leave"
    told = {(event["type"], event.get("state_key")) for event in sync.timeline(room_id, "leave")}
    assert ("m.room.name", "") in told | set(sync.state(room_id, "leave"))


async def test_left_and_joined_again_within_one_window(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    await bob.sync()
    await alice.send(room_id, "while there")
    await bob.act(room_id, "leave")
    await alice.send(room_id, "while away")
    await alice.set_state(room_id, "m.room.topic", {"topic": "Changed while away"})
    await bob.act(room_id, "join")
    await alice.send(room_id, "back again")
    sync = await bob.sync(filter=timeline_filter(limit=5))
    assert sync.rooms("leave") == {}
    assert sync.bodies(room_id) == ["while there", "back again"]
    assert "m.room.topic" in types(sync.timeline(room_id)), "what is in the state is no secret"
    assert sync.room(room_id)["timeline"]["limited"] is True
    assert ("m.room.create", "") in sync.state(room_id), "the room comes whole"


async def test_joined_again_in_a_later_window(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    await bob.act(room_id, "leave")
    await bob.sync()
    hidden = [await alice.send(room_id, f"hidden {number}") for number in range(30)]
    await bob.act(room_id, "join")
    seen = await alice.send(room_id, "seen")
    sync = await bob.sync(filter=timeline_filter(types=["m.room.message"]))
    assert event_ids(sync.timeline(room_id)) == [seen]
    assert not set(hidden) & set(event_ids(sync.timeline(room_id)))
    assert sync.room(room_id)["timeline"]["limited"] is True


async def test_history_for_those_who_were_invited(alice: Device, bob: Device) -> None:
    room_id = await alice.create(preset="private_chat")
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "invited"})
    await alice.send(room_id, "before")
    await alice.act(room_id, "invite", user_id=bob.user_id)
    await alice.send(room_id, "between")
    await bob.act(room_id, "join")
    await alice.send(room_id, "after")
    sync = await bob.sync()
    assert sync.bodies(room_id) == ["between", "after"]
    memberships = {e["content"].get("body"): e["unsigned"]["membership"] for e in sync.timeline(room_id)}
    assert (memberships["between"], memberships["after"]) == ("invite", "join")


async def test_memberships_of_others_are_told(alice: Device, bob: Device, carol: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    await carol.act(room_id, "join")
    sync = await bob.sync()
    assert [event["state_key"] for event in sync.timeline(room_id)] == [carol.user_id]
    summary = sync.room(room_id)["summary"]
    assert summary == {
        "m.joined_member_count": 3,
        "m.invited_member_count": 0,
        "m.heroes": [alice.user_id, carol.user_id],
    }
    await alice.act(room_id, "kick", user_id=carol.user_id)
    assert (await bob.sync()).room(room_id)["summary"]["m.joined_member_count"] == 2


async def test_a_new_name_of_oneself_does_not_make_a_room_new(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.sync()
    await bob.set_state(room_id, "m.room.member", {"membership": "join", "displayname": "Bobby"}, bob.user_id)
    sync = await bob.sync()
    assert len(sync.timeline(room_id)) == 1
    assert sync.room(room_id)["timeline"]["limited"] is False
    assert sync.state(room_id) == {}


async def test_an_upgraded_room_is_followed(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob, name="Kitchen")
    await bob.put(f"/user/{bob.user_id}/rooms/{room_id}/tags/u.home", {"order": 0.5})
    await bob.sync()
    new_id = (await alice.post(f"/rooms/{room_id}/upgrade", {"new_version": "11"}))["replacement_room"]
    sync = await bob.sync()
    assert types(sync.timeline(room_id))[0] == "m.room.tombstone"
    assert new_id not in sync.rooms()
    await bob.act(new_id, "join")
    sync = await bob.sync()
    assert sync.room_account_data(new_id)["m.tag"] == {"tags": {"u.home": {"order": 0.5}}}
    create = sync.state(new_id).get(("m.room.create", "")) or sync.timeline(new_id)[0]
    assert create["content"]["predecessor"]["room_id"] == room_id
