"""Events of another server in a room: they come in any order, twice, with gaps, and over several processes."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from homeserver.core.errors import RemoteRefused
from homeserver.core.event_auth.auth_events import member_slot
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.services.remote import EventJson
from storage.rooms import get_room
from tests.rooms.consistency import check_consistent
from tests.rooms.incoming.homeserver import Homeserver, room_with_another_server
from tests.rooms.workers import ALICE, member, message

VERSIONS = ("1", "2", "3", "6", "10", "11", "12")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_conversation_goes_on_between_servers(homeserver: Homeserver, version: str) -> None:
    remote = await room_with_another_server(homeserver, version=version)
    dora = remote.user("dora")
    said = [remote.say(f"line {number}", sender=dora) for number in range(5)]
    named = remote.send("m.room.name", {"name": "Ours"}, sender=dora, state_key="")
    outcome = await homeserver.push(remote, *said, named)
    assert outcome == {pdu.event_id: None for pdu in (*said, named)}
    assert (await homeserver.shown(remote.room_id))[-6:] == [pdu.event_id for pdu in (*said, named)]
    answer = await homeserver.worker.add(remote.room_id, message("hello"))
    assert answer.events[0].prev_events == (named.event_id,)
    assert (await homeserver.state(remote.room_id))[("m.room.name", "")] == named.event_id
    await check_consistent(homeserver.worker.db, remote.room_id)


async def test_what_came_before_is_taken_again_without_harm(homeserver: Homeserver) -> None:
    remote = await room_with_another_server(homeserver)
    said = [remote.say(str(number), sender=remote.user("dora")) for number in range(3)]
    first = await homeserver.push(remote, *said)
    assert await homeserver.push(remote, *reversed(said), said[0]) == first
    assert len(await homeserver.shown(remote.room_id)) == len(set(await homeserver.shown(remote.room_id)))


async def test_missing_events_are_fetched_before(homeserver: Homeserver) -> None:
    remote = await room_with_another_server(homeserver)
    dora = remote.user("dora")
    said = [remote.say(str(number), sender=dora) for number in range(45)]
    assert await homeserver.push(remote, said[-1]) == {said[-1].event_id: None}
    assert (await homeserver.shown(remote.room_id))[-45:] == [pdu.event_id for pdu in said]
    assert remote.asked.count("get_missing_events") <= 4
    assert "state_ids" not in remote.asked
    await check_consistent(homeserver.worker.db, remote.room_id)


async def test_at_a_gap_the_state_is_asked_for(homeserver: Homeserver) -> None:
    """What lies in the gap is noted as missing, and history leaves room for it."""
    remote = await room_with_another_server(homeserver)
    dora, eve = remote.user("dora"), remote.user("eve")
    before = remote.say("before", sender=dora)
    await homeserver.push(remote, before)
    joined = remote.join(eve)
    for number in range(400):
        remote.say(str(number), sender=dora)
    last = remote.say("after the gap", sender=eve)
    assert await homeserver.push(remote, last) == {last.event_id: None}
    assert (await homeserver.state(remote.room_id))[member_slot(eve)] == joined.event_id
    assert (await homeserver.get(joined)).topological is None
    async with homeserver.worker.db.connection() as conn:
        gap = await conn.fetch("SELECT event_id, topological FROM missing_events")
    assert len(gap) == 1
    missing = EventId(gap[0]["event_id"])
    follower = next(pdu for pdu in remote.server.events.values() if missing in pdu.prev_events)
    stored = await homeserver.get(follower)
    assert stored.topological == gap[0]["topological"]
    assert stored.topological >= (await homeserver.get(before)).topological + 2**20
    assert await homeserver.ends(remote.room_id) == {before.event_id, last.event_id}
    await homeserver.worker.add(remote.room_id, message("both"))
    assert len(await homeserver.ends(remote.room_id)) == 1
    await homeserver.tell(remote)
    assert await homeserver.state(remote.room_id) == remote.server.current_state


async def test_what_cannot_be_connected_is_not_stored(homeserver: Homeserver) -> None:
    """The event may come again, when what it follows can be had."""
    remote = await room_with_another_server(homeserver)
    dora = remote.user("dora")
    base = await homeserver.ends(remote.room_id)
    renamed = remote.send("m.room.name", {"name": "lost"}, sender=dora, state_key="")
    remote.withheld.add(renamed.event_id)
    after = remote.say("after", sender=dora)
    assert (await homeserver.push(remote, after))[after.event_id] is not None
    assert await homeserver.ends(remote.room_id) == base
    remote.withheld.clear()
    assert await homeserver.push(remote, after, renamed) == {after.event_id: None, renamed.event_id: None}
    assert await homeserver.ends(remote.room_id) == {after.event_id}
    await check_consistent(homeserver.worker.db, remote.room_id)


async def test_a_server_that_gives_no_auth_chains_is_asked_for_the_events(
    homeserver: Homeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = await room_with_another_server(homeserver)
    dora = remote.user("dora")
    renamed = remote.join(dora)
    said = remote.say("hello", sender=dora)
    remote.gives_missing_events = False

    async def refuse(via: ServerName, room_id: RoomId, event_id: EventId) -> Sequence[EventJson]:
        raise RemoteRefused("No", remote_errcode="M_UNRECOGNIZED", status=404)

    monkeypatch.setattr(remote, "event_auth", refuse)
    assert await homeserver.push(remote, said) == {said.event_id: None}
    assert (await homeserver.get(renamed)).rejected is None
    assert said.event_id in await homeserver.shown(remote.room_id)


async def test_what_was_missing_may_come_late(homeserver: Homeserver) -> None:
    """It is shown, but nothing new refers to it, for what follows it is here already."""
    remote = await room_with_another_server(homeserver)
    dora = remote.user("dora")
    base = await homeserver.ends(remote.room_id)
    named = remote.send("m.room.name", {"name": "in the gap"}, sender=dora, state_key="")
    said = remote.say("in the gap", sender=dora)
    remote.gives_missing_events = False
    after = remote.say("after the gap", sender=dora)
    assert await homeserver.push(remote, after) == {after.event_id: None}
    assert await homeserver.ends(remote.room_id) == {*base, after.event_id}
    assert (await homeserver.state(remote.room_id))[("m.room.name", "")] == named.event_id
    assert said.event_id not in await homeserver.shown(remote.room_id)
    assert await homeserver.push(remote, named, said) == {named.event_id: None, said.event_id: None}
    assert await homeserver.ends(remote.room_id) == {after.event_id}
    async with homeserver.worker.db.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM missing_events") == 0
    assert await homeserver.state(remote.room_id) == remote.server.current_state
    await check_consistent(homeserver.worker.db, remote.room_id)


async def test_rejected_events_are_shown_to_nobody_and_followed_by_none(homeserver: Homeserver) -> None:
    remote = await room_with_another_server(homeserver, levels=(("dora", 50), ("mallory", 0)))
    dora, mallory = remote.user("dora"), remote.user("mallory")
    before = await homeserver.ends(remote.room_id)
    bad = remote.make("m.room.name", {"name": "mine"}, sender=mallory, state_key="")
    remote.server.receive(bad)
    follower = remote.make("m.room.message", {"body": "after"}, sender=dora, prev_events=[bad.event_id])
    outcome = await homeserver.push(remote, bad, follower)
    assert outcome[bad.event_id] is not None
    assert outcome[follower.event_id] is None
    stored = await homeserver.get(bad)
    assert stored.rejected is not None
    assert (stored.position, stored.topological) == (None, None)
    assert bad.event_id not in await homeserver.shown(remote.room_id)
    assert await homeserver.ends(remote.room_id) == {follower.event_id} != before
    assert ("m.room.name", "") not in await homeserver.state(remote.room_id)


async def test_soft_failed_events_are_shown_to_nobody_and_followed_by_none(homeserver: Homeserver) -> None:
    remote = await room_with_another_server(homeserver)
    dora = remote.user("dora")
    await homeserver.worker.add(remote.room_id, member(dora, "ban", sender=ALICE))
    ends = await homeserver.ends(remote.room_id)
    evading = remote.say("evading", sender=dora)
    assert await homeserver.push(remote, evading) == {evading.event_id: None}
    stored = await homeserver.get(evading)
    assert stored.soft_failed
    assert (stored.position, stored.rejected) == (None, None)
    assert await homeserver.ends(remote.room_id) == ends
    assert (await homeserver.worker.add(remote.room_id, message("gone"))).events[0].prev_events == tuple(ends)


async def test_what_follows_a_soft_failed_event_covers_what_lies_before_it(homeserver: Homeserver) -> None:
    remote = await room_with_another_server(homeserver, levels=(("dora", 50), ("carol", 50)))
    dora, carol = remote.user("dora"), remote.user("carol")
    ban = await homeserver.worker.add(remote.room_id, member(dora, "ban", sender=ALICE))
    evading = remote.say("evading", sender=dora)
    await homeserver.push(remote, evading)
    await homeserver.tell(remote)
    both = remote.say("both", sender=carol, prev_events=[evading.event_id, ban.events[0].event_id])
    await homeserver.push(remote, both)
    assert await homeserver.ends(remote.room_id) == {both.event_id}
    assert (await homeserver.get(both)).position is not None


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("version", ["2", "6", "12"])
async def test_any_order_leads_to_the_same_room(
    homeserver: Homeserver, other_homeserver: Homeserver, seed: int, version: str
) -> None:
    """Two processes are sent the same forked conversation in different orders, in part twice and at the same time."""
    rng = random.Random(f"{seed} {version}")
    remote = await room_with_another_server(homeserver, version=version, levels=(("dora", 50), ("carol", 50)))
    dora, carol = remote.user("dora"), remote.user("carol")
    sent = []
    for number in range(14):
        sender = rng.choice((dora, carol))
        recent = [pdu.event_id for pdu in sent[-3:]]
        place = (
            {"prev_events": rng.sample(recent, rng.randint(1, len(recent)))} if recent and rng.random() < 0.5 else {}
        )
        if rng.random() < 0.4:
            sent.append(remote.send("m.room.name", {"name": str(number)}, sender=sender, state_key="", **place))
        elif rng.random() < 0.3:
            key = rng.choice("ab")
            sent.append(remote.send("org.example.any", {"n": number}, sender=sender, state_key=key, **place))
        else:
            sent.append(remote.say(str(number), sender=sender, **place))
    orders = [rng.sample(sent, len(sent)), rng.sample(sent, len(sent))]

    async def deliver(at: Homeserver, order: list) -> None:
        while order:
            count = rng.randint(1, 4)
            outcome = await at.push(remote, *order[:count])
            assert set(outcome.values()) == {None}, outcome
            del order[:count]

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(deliver(homeserver, orders[0]))
        tasks.create_task(deliver(other_homeserver, orders[1]))
    assert not remote.server.waiting
    assert await homeserver.state(remote.room_id) == remote.server.current_state
    assert await homeserver.ends(remote.room_id) == remote.server.extremities
    shown = await homeserver.shown(remote.room_id)
    assert {pdu.event_id for pdu in sent} <= set(shown)
    assert len(shown) == len(set(shown))
    await check_consistent(homeserver.worker.db, remote.room_id)


async def test_too_many_ends_are_joined_by_an_event_that_nobody_sees(homeserver: Homeserver) -> None:
    """S13: where nobody of this server speaks, forks must not pile up."""
    remote = await room_with_another_server(homeserver)
    dora = remote.user("dora")
    base = sorted(remote.server.extremities)
    forks = [remote.say(str(number), sender=dora, prev_events=base) for number in range(12)]
    await homeserver.push(remote, *forks)
    ends = await homeserver.ends(remote.room_id)
    assert len(ends) == 1
    assert not ends & set(await homeserver.shown(remote.room_id))
    async with homeserver.worker.db.connection() as conn:
        row = await conn.fetchrow("SELECT * FROM events WHERE event_id = $1", ends.copy().pop())
    assert row is not None
    assert (row["position"], row["topological"], row["push_actions_id"]) == (None, None, None)
    await check_consistent(homeserver.worker.db, remote.room_id)
    added = await homeserver.worker.add(remote.room_id, message("goes on"))
    assert set(added.events[0].prev_events) == ends
    shown = await homeserver.get(added.events[0])
    assert shown.topological == max([(await homeserver.get(fork)).topological or 0 for fork in forks]) + 1
    await homeserver.tell(remote)
    said = remote.say("after", sender=dora)
    assert await homeserver.push(remote, said) == {said.event_id: None}
    await check_consistent(homeserver.worker.db, remote.room_id)


async def test_where_members_are_lacking_those_that_events_cite_are_believed(homeserver: Homeserver) -> None:
    """A room that has been joined without being told of all its members."""
    remote = await room_with_another_server(homeserver)
    eve = remote.user("eve")
    base = sorted(await homeserver.ends(remote.room_id))
    joined = remote.join(eve)
    cites = remote.server.current_state
    async with homeserver.worker.db.connection() as conn:
        room = await get_room(conn, remote.room_id)
        await conn.execute(
            "INSERT INTO partial_rooms (room_nid, join_nid, servers) VALUES ($1, 1, '{}')", room.room_nid
        )
    await homeserver.outliers.store(room, [joined])
    content = {"msgtype": "m.text", "body": "nobody knows me"}
    said = [
        remote.make("m.room.message", {**content, "n": n}, sender=eve, prev_events=base, cites=cites) for n in range(2)
    ]
    assert await homeserver.push(remote, *said) == {pdu.event_id: None for pdu in said}
    shown = await homeserver.shown(remote.room_id)
    assert {pdu.event_id for pdu in said} <= set(shown)
    async with homeserver.worker.db.connection() as conn:
        await conn.execute("DELETE FROM partial_rooms")
    late = remote.make("m.room.message", content, sender=eve, prev_events=base, cites=cites)
    assert (await homeserver.push(remote, late))[late.event_id] is not None


async def test_who_cannot_be_reached_is_stood_in_for_by_others(homeserver: Homeserver) -> None:
    """The server that sends events may be one that can only call us."""
    remote = await room_with_another_server(homeserver)
    third = homeserver.meet(remote.room_id, remote.room_version, ServerName("third.org"))
    third.server.events, third.server.states_before = remote.server.events, remote.server.states_before
    third.server.extremities = remote.server.extremities
    await homeserver.push(third, third.join(third.user("carol")))
    remote.is_away = True
    said = [remote.say(str(number), sender=remote.user("dora")) for number in range(5)]
    assert await homeserver.push(remote, said[-1]) == {said[-1].event_id: None}
    assert (await homeserver.shown(remote.room_id))[-5:] == [pdu.event_id for pdu in said]
    assert "get_missing_events" in third.asked


async def test_what_cannot_be_taken_yet_is_tried_again(homeserver: Homeserver) -> None:
    """Nobody sends it again, and perhaps nothing follows it."""
    remote = await room_with_another_server(homeserver)
    remote.is_away = True
    said = [remote.say(str(number), sender=remote.user("dora")) for number in range(3)]
    assert (await homeserver.push(remote, said[-1]))[said[-1].event_id] is not None
    assert await homeserver.stored(said[-1]) is None
    clock, take_again = homeserver.worker.clock, homeserver.incoming.take_again
    for _ in range(3):
        clock.advance(3600)
        await homeserver.postponed.retry(take_again)
        assert await homeserver.stored(said[-1]) is None
    remote.is_away = False
    await homeserver.postponed.retry(take_again)
    assert await homeserver.stored(said[-1]) is None, "it is not due yet"
    clock.advance(3600)
    await homeserver.postponed.retry(take_again)
    assert (await homeserver.shown(remote.room_id))[-3:] == [pdu.event_id for pdu in said]
    async with homeserver.worker.db.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM postponed_events") == 0


async def test_it_is_not_tried_for_ever(homeserver: Homeserver) -> None:
    remote = await room_with_another_server(homeserver)
    remote.is_away = True
    remote.say("lost", sender=remote.user("dora"))
    said = [remote.say(str(number), sender=remote.user("dora")) for number in range(3)]
    await homeserver.push(remote, *said)
    await homeserver.push(remote, *said)
    async with homeserver.worker.db.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM postponed_events") == 3
        for _ in range(20):
            homeserver.worker.clock.advance(3600)
            await homeserver.postponed.retry(homeserver.incoming.take_again)
        assert await conn.fetchval("SELECT count(*) FROM postponed_events") == 0
