"""Lazy loading: which member events come, and which are left out because the client has them.

https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members
"""

from typing import Any

import pytest

from tests.api.server import Site
from tests.api.sync.api import Device, lazy_filter, register

TWO = lazy_filter(limit=2)


async def crowd(site: Site, alice: Device) -> tuple[str, list[Device]]:
    """A room with some members who have said nothing yet, and many messages of the first."""
    others = await register(site, "dave", "erin", "frank")
    room_id = await alice.create(*others, name="Crowd")
    for number in range(3):
        await alice.send(room_id, f"{number}")
    return room_id, others


async def test_a_first_sync_has_only_those_who_speak(site: Site, alice: Device, bob: Device) -> None:
    room_id, (dave, *_) = await crowd(site, alice)
    await bob.act(room_id, "join")
    await dave.send(room_id, "hello")
    sync = await bob.peek(since=None, filter=TWO)
    assert sync.members(room_id) == {dave.user_id}, "the own member event is in the timeline"
    await dave.send(room_id, "hello")
    sync = await bob.peek(since=None, filter=TWO)
    assert sync.members(room_id) == {dave.user_id, bob.user_id}
    assert ("m.room.name", "") in sync.state(room_id)
    after = await bob.peek(since=None, filter=TWO, use_state_after=True)
    assert after.members(room_id, member="state_after") == {dave.user_id, bob.user_id}


async def test_nobody_is_told_twice(site: Site, alice: Device) -> None:
    room_id, (dave, erin, _) = await crowd(site, alice)
    alice.sync_query = {"filter": TWO}
    await alice.sync()
    await dave.send(room_id, "one")
    assert (await alice.sync()).members(room_id) == {dave.user_id}
    await dave.send(room_id, "two")
    await erin.send(room_id, "three")
    assert (await alice.sync()).members(room_id) == {erin.user_id}
    await dave.send(room_id, "four")
    assert (await alice.sync()).members(room_id) == set()
    redundant = lazy_filter(limit=2, include_redundant_members=True)
    await dave.send(room_id, "five")
    assert (await alice.sync(filter=redundant)).members(room_id) == {dave.user_id}


async def test_what_the_client_may_not_have_got_is_told_again(site: Site, alice: Device) -> None:
    room_id, (dave, *_) = await crowd(site, alice)
    alice.sync_query = {"filter": TWO}
    await alice.sync()
    await dave.send(room_id, "one")
    assert (await alice.peek()).members(room_id) == {dave.user_id}
    await dave.send(room_id, "two")
    assert (await alice.peek()).members(room_id) == {dave.user_id}, "the answer may have been lost"
    first = await alice.peek(since=None)
    assert dave.user_id in first.members(room_id)


async def test_a_client_that_begins_anew_knows_nobody(site: Site, alice: Device) -> None:
    room_id, (dave, erin, _) = await crowd(site, alice)
    alice.sync_query = {"filter": TWO}
    await alice.sync()
    await dave.send(room_id, "one")
    await alice.sync()
    for number in range(2):
        await erin.send(room_id, f"{number}")
    await alice.sync()
    alice.since = None
    assert dave.user_id not in (await alice.sync()).members(room_id)
    await dave.send(room_id, "two")
    assert (await alice.sync()).members(room_id) == {dave.user_id}


async def test_each_device_is_told_for_itself(site: Site, alice: Device) -> None:
    room_id, (dave, *_) = await crowd(site, alice)
    other = Device.of(await site.login("alice"), filter=TWO)
    alice.sync_query = {"filter": TWO}
    for device in (alice, other):
        await device.sync()
    await dave.send(room_id, "one")
    for device in (alice, other):
        assert (await device.sync()).members(room_id) == {dave.user_id}


async def test_members_that_changed_in_a_gap_are_told_whoever_speaks(site: Site, alice: Device, bob: Device) -> None:
    room_id, (dave, erin, frank) = await crowd(site, alice)
    alice.sync_query = {"filter": TWO}
    await alice.sync()
    await bob.act(room_id, "join")
    await erin.act(room_id, "leave")
    await dave.set_state(room_id, "m.room.member", {"membership": "join", "displayname": "D"}, dave.user_id)
    for number in range(3):
        await frank.send(room_id, f"{number}")
    sync = await alice.sync()
    assert sync.room(room_id)["timeline"]["limited"] is True
    assert sync.members(room_id) == {bob.user_id, erin.user_id, dave.user_id, frank.user_id}
    await dave.send(room_id, "it is me")
    assert (await alice.sync()).members(room_id) == set()


@pytest.mark.parametrize("query", [{}, {"full_state": True}, {"use_state_after": True}])
async def test_members_that_changed_while_one_was_away_are_told_whoever_speaks(
    site: Site, alice: Device, bob: Device, query: dict[str, Any]
) -> None:
    room_id, (dave, erin, frank) = await crowd(site, alice)
    await bob.act(room_id, "join")
    await dave.send(room_id, "it is me")
    assert dave.user_id in (await bob.sync(filter=TWO)).members(room_id)
    await bob.act(room_id, "leave")
    await dave.set_state(room_id, "m.room.member", {"membership": "join", "displayname": "D"}, dave.user_id)
    await bob.act(room_id, "join")
    for number in range(2):
        await frank.send(room_id, f"{number}")
    section = "state_after" if "use_state_after" in query else "state"
    told = (await bob.sync(filter=TWO, **query)).members(room_id, member=section)
    assert {dave.user_id, frank.user_id} <= told, "the client has an old name of dave"
    assert erin.user_id not in told


async def test_members_in_the_timeline_need_not_be_told_beside_it(site: Site, alice: Device, bob: Device) -> None:
    room_id, _ = await crowd(site, alice)
    alice.sync_query = {"filter": TWO}
    await alice.sync()
    await bob.act(room_id, "join")
    await bob.send(room_id, "hello")
    assert (await alice.sync()).members(room_id) == set()
    await bob.send(room_id, "again")
    assert (await alice.sync()).members(room_id) == set(), "the client has seen bob join"


async def test_the_name_that_a_sender_had_before_the_timeline_is_told(site: Site, alice: Device) -> None:
    room_id, (dave, *_) = await crowd(site, alice)
    alice.sync_query = {"filter": lazy_filter(limit=5)}
    await alice.sync()
    await dave.send(room_id, "one")
    await dave.set_state(room_id, "m.room.member", {"membership": "join", "displayname": "D"}, dave.user_id)
    state = (await alice.peek()).state(room_id)
    assert state["m.room.member", dave.user_id]["content"].get("displayname") != "D"
    after = (await alice.peek(use_state_after=True)).state(room_id, member="state_after")
    assert after["m.room.member", dave.user_id]["content"]["displayname"] == "D"


async def test_heroes_are_told(site: Site, alice: Device, bob: Device) -> None:
    others = await register(site, "dave", "erin", "frank")
    room_id = await alice.create(*others)
    await bob.act(room_id, "join")
    for number in range(3):
        await bob.send(room_id, f"{number}")
    sync = await bob.sync(filter=TWO)
    everybody = {each.user_id for each in (alice, bob, *others)}
    assert sync.members(room_id) == everybody
    assert set(sync.room(room_id)["summary"]["m.heroes"]) == everybody - {bob.user_id}


async def test_the_full_state_has_oneself_and_those_who_speak(site: Site, alice: Device, bob: Device) -> None:
    room_id, (dave, *_) = await crowd(site, alice)
    await bob.act(room_id, "join")
    await bob.send(room_id, "hello")
    await bob.sync(filter=TWO)
    await dave.send(room_id, "one")
    assert (await bob.peek(filter=TWO, full_state=True)).members(room_id) == {bob.user_id, dave.user_id}


async def test_coming_to_a_room_brings_oneself(site: Site, alice: Device, bob: Device) -> None:
    room_id, (dave, *_) = await crowd(site, alice)
    await bob.sync(filter=TWO)
    await bob.act(room_id, "join")
    for number in range(2):
        await dave.send(room_id, f"{number}")
    assert (await bob.sync(filter=TWO)).members(room_id) == {bob.user_id, dave.user_id}
