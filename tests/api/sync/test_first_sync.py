"""A first sync: all that a client needs to begin, and what it is refused."""

from typing import Any

from tests.api.server import Site, refused
from tests.api.sync.api import Device, event_ids, timeline_filter, types


async def test_a_room_as_it_is(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob, name="Kitchen")
    event_id = await alice.send(room_id, "one")
    sync = await bob.sync()
    assert set(sync.rooms()) == {room_id}
    assert sync.rooms("invite") == sync.rooms("knock") == sync.rooms("leave") == {}
    room = sync.room(room_id)
    assert set(room) == {"timeline", "state", "ephemeral", "account_data", "summary", "unread_notifications"}
    assert room["unread_notifications"] == {"highlight_count": 0, "notification_count": 1}
    assert room["summary"] == {"m.joined_member_count": 2, "m.invited_member_count": 0}
    assert event_ids(sync.timeline(room_id))[-1] == event_id
    told = {(event["type"], event["state_key"]) for event in sync.timeline(room_id) if "state_key" in event}
    assert not told & set(sync.state(room_id)), "the state is that before the timeline"
    assert told | set(sync.state(room_id)) == {
        (event["type"], event["state_key"]) for event in await bob.get(f"/rooms/{room_id}/state")
    }


async def test_a_long_timeline_is_limited_and_leads_into_the_past(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    sent = [await alice.send(room_id, f"{number}") for number in range(15)]
    await alice.rename(room_id, "Late")
    room = (await bob.sync(filter=timeline_filter(limit=4))).room(room_id)
    assert room["timeline"]["limited"] is True
    assert types(room["timeline"]["events"]) == ["m.room.message"] * 3 + ["m.room.name"]
    assert "m.room.name" not in types(room["state"]["events"]), "the state is that before the timeline"
    assert len(room["state"]["events"]) >= 6
    page = await bob.get(f"/rooms/{room_id}/messages", dir="b", limit=12, **{"from": room["timeline"]["prev_batch"]})
    assert event_ids(page["chunk"]) == sent[11::-1]


async def test_limits_of_timelines(alice: Device) -> None:
    room_id = await alice.create()
    created = len((await alice.peek(since=None, filter=timeline_filter(limit=100))).timeline(room_id))
    for number in range(18 - created):
        await alice.send(room_id, f"{number}")
    for limit, shown in ((0, 0), (1, 1), (17, 17), (18, 18), (10_000, 18)):
        timeline = (await alice.peek(since=None, filter=timeline_filter(limit=limit))).room(room_id)["timeline"]
        assert len(timeline["events"]) == shown
        assert timeline["limited"] is (shown < 18)
        page = await alice.get(f"/rooms/{room_id}/messages", dir="b", limit=100, **{"from": timeline["prev_batch"]})
        assert len(page["chunk"]) == 18 - shown


async def test_state_after_the_timeline(alice: Device) -> None:
    room_id = await alice.create()
    await alice.rename(room_id, "Kitchen")
    stable, proposed = "use_state_after", "org.matrix.msc4222.use_state_after"
    for parameters, member in (
        ((stable,), "state_after"),
        ((proposed,), "org.matrix.msc4222.state_after"),
        ((stable, proposed), "state_after"),
    ):
        sync = await alice.peek(since=None, **dict.fromkeys(parameters, True))
        assert [name for name in sync.room(room_id) if "state" in name] == [member]
        state = sync.state(room_id, member=member)
        assert state["m.room.name", ""]["content"] == {"name": "Kitchen"}
        assert set(state) == {
            (event["type"], event["state_key"]) for event in await alice.get(f"/rooms/{room_id}/state")
        }


async def test_the_account_itself(alice: Device, bob: Device) -> None:
    sync = await alice.sync()
    assert sync.rooms() == {}
    assert set(sync.account_data) == {"m.push_rules"}
    assert sync.account_data["m.push_rules"]["global"]["override"]
    assert sync.presence[alice.user_id]["presence"] == "online"
    await alice.put(f"/user/{alice.user_id}/account_data/org.example", {"a": 1})
    assert (await alice.peek(since=None)).account_data["org.example"] == {"a": 1}
    assert "org.example" not in (await bob.sync()).account_data
    for absent in ("to_device", "device_lists", "device_one_time_keys_count"):
        assert absent not in sync.body


async def test_heroes_name_rooms_without_a_name(alice: Device, bob: Device, carol: Device, site: Site) -> None:
    room_id = await alice.create(bob, invite=[carol.user_id])
    others = [Device.of(await site.register(f"user{number}")) for number in range(5)]
    summary = (await alice.peek(since=None)).room(room_id)["summary"]
    assert summary["m.heroes"] == [carol.user_id, bob.user_id]
    assert (summary["m.joined_member_count"], summary["m.invited_member_count"]) == (2, 1)
    for other in others:
        await other.act(room_id, "join")
    heroes = (await alice.peek(since=None)).room(room_id)["summary"]["m.heroes"]
    assert len(heroes) == 5
    assert alice.user_id not in heroes
    for other in (*others, bob, carol):
        await other.act(room_id, "leave")
    heroes = (await alice.peek(since=None)).room(room_id)["summary"]["m.heroes"]
    assert len(heroes) == 5, "who was there is better than nobody"
    await alice.rename(room_id, "Kitchen")
    assert "m.heroes" not in (await alice.peek(since=None)).room(room_id)["summary"]


async def test_rooms_that_were_left_are_told_if_the_filter_says_so(alice: Device, bob: Device, carol: Device) -> None:
    room_id = await alice.create(bob, carol)
    seen = await alice.send(room_id, "before")
    await bob.act(room_id, "leave")
    await alice.send(room_id, "after")
    await alice.set_state(room_id, "m.room.topic", {"topic": "Secret"})
    assert (await bob.peek(since=None)).rooms("leave") == {}
    sync = await bob.peek(since=None, filter={"room": {"include_leave": True}})
    assert set(sync.rooms()) == set()
    events = sync.timeline(room_id, "leave")
    assert event_ids(events)[-2] == seen
    assert events[-1]["content"] == {"membership": "leave"}
    assert events[-1]["unsigned"]["membership"] == "leave"
    assert events[-2]["unsigned"]["membership"] == "join"
    assert ("m.room.topic", "") not in sync.state(room_id, "leave")
    await bob.act(room_id, "forget")
    assert (await bob.peek(since=None, filter={"room": {"include_leave": True}})).rooms("leave") == {}


async def test_a_ban_after_leaving_shows_nothing_of_what_happened_between(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.act(room_id, "leave")
    await alice.set_state(room_id, "m.room.topic", {"topic": "Secret"})
    await alice.send(room_id, "secret")
    await alice.act(room_id, "ban", user_id=bob.user_id)
    for query in ({"filter": {"room": {"include_leave": True}}}, {"since": "s0"}):
        for after in (False, True):
            member = "state_after" if after else "state"
            sync = await bob.peek(use_state_after=after, **{"since": None, **query})
            assert sync.bodies(room_id, "leave") == []
            assert "m.room.topic" not in types(sync.timeline(room_id, "leave"))
            assert ("m.room.topic", "") not in sync.state(room_id, "leave", member=member)
            assert sync.timeline(room_id, "leave")[-1]["content"]["membership"] == "ban"


async def test_whoever_refused_an_invitation_sees_nothing_of_the_room(alice: Device, bob: Device) -> None:
    room_id = await alice.create(preset="private_chat", name="Secret", invite=[bob.user_id])
    await alice.send(room_id, "secret")
    await bob.act(room_id, "leave")
    for use_state_after in (False, True):
        sync = await bob.peek(since=None, filter={"room": {"include_leave": True}}, use_state_after=use_state_after)
        (event,) = sync.timeline(room_id, "leave")
        assert event["content"] == {"membership": "leave"}
        member = "state_after" if use_state_after else "state"
        assert sync.state(room_id, "leave", member=member) == {}
        assert sync.room(room_id, "leave")["timeline"]["limited"] is False


async def test_a_token_from_the_beginning_tells_all(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    left_id = await alice.create(bob)
    await bob.act(left_id, "leave")
    first = await bob.peek(since=None)
    again = await bob.peek(since="s0")
    assert again.rooms().keys() == first.rooms().keys() == {room_id}
    assert again.timeline(room_id)[-1]["event_id"] == first.timeline(room_id)[-1]["event_id"]
    assert set(again.rooms("leave")) == {left_id}, "it is news that the room was left"
    assert "m.push_rules" in again.account_data


async def test_tokens_that_are_none(alice: Device) -> None:
    other_forms = [
        "x",
        "s",
        "s-1",
        "s1.5",
        "s01",
        "t1_1",
        "s1_1",
        "s99999999999999999999",
        "s1\x00",
        "n5",
        "\N{SNOWMAN}",
    ]
    for since in other_forms:
        refused(await alice.call("GET", "/sync", since=since), 400, "M_INVALID_PARAM")


async def test_a_token_from_the_future_is_refused(alice: Device) -> None:
    position = int((await alice.sync()).next_batch[1:])
    for since in (position + 1_000_000, 2**63 - 1):
        refused(await alice.call("GET", "/sync", since=f"s{since}", timeout=30_000), 400, "M_INVALID_PARAM")


async def test_parameters_that_are_wrong(alice: Device) -> None:
    wrong: list[dict[str, Any]] = [
        {"timeout": "soon"},
        {"timeout": "-1"},
        {"full_state": "yes"},
        {"use_state_after": "1"},
        {"set_presence": "away"},
        {"filter": "17"},
        {"filter": "no such filter"},
        {"filter": "1\x00"},
        {"filter": "9" * 30},
    ]
    for query in wrong:
        refused(await alice.call("GET", "/sync", **query), 400, "M_INVALID_PARAM")


async def test_filters_that_are_wrong(alice: Device) -> None:
    wrong = {
        "{": "M_NOT_JSON",
        '{"room": []}': "M_BAD_JSON",
        '{"room": {"timeline": {"limit": "many"}}}': "M_BAD_JSON",
        '{"room": {"timeline": {"limit": -1}}}': "M_BAD_JSON",
        '{"room": {"rooms": ["no room"]}}': "M_BAD_JSON",
        '{"event_format": "xml"}': "M_BAD_JSON",
        '{"room": {"timeline": {"types": ["\\u0000"]}}}': "M_BAD_JSON",
    }
    for definition, errcode in wrong.items():
        refused(await alice.call("GET", "/sync", filter=definition), 400, errcode)


async def test_without_a_token_nobody_syncs(site: Site) -> None:
    refused(await site.anonymous().call("GET", "/sync"), 401, "M_MISSING_TOKEN")
