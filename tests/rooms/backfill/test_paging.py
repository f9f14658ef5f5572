"""Reading the history of a room from before this server came into it.

https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

import random

import pytest

from homeserver.core.errors import RemoteUnavailable
from homeserver.core.ids import UserId
from storage.database import Database
from tests.rooms.backfill.conftest import Serve
from tests.rooms.backfill.past_room import (
    DORA,
    EMIL,
    RESIDENT,
    bodies,
    check_history,
    enter,
    ids,
    missing,
    past_room,
    push,
    read_back,
    stored_events,
    talk,
    tell,
)
from tests.rooms.remote_membership.resident import ELSEWHERE, join, refused
from tests.waiting import wait_until

VERSIONS = ("1", "6", "11", "12")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_room_from_its_beginning(serve: Serve, db: Database, version: str) -> None:
    resident = past_room(version)
    room = resident.room
    talk(room, 40)
    room.send(DORA, "m.room.topic", {"topic": "one"}, state_key="")
    talk(room, 20)
    room.send(DORA, "m.room.member", {"membership": "leave"}, state_key=EMIL)
    join(room, EMIL)
    room.send(DORA, "m.room.topic", {"topic": "two"}, state_key="")
    talk(room, 30)
    before = resident.history
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room.room_id)
        since = (await alice.get("/sync"))["next_batch"]
        shown = await read_back(alice, room.room_id, limit=25)
        assert ids(shown) == [*ids(before), ids(resident.sent)[0]]
        assert shown[0]["type"] == "m.room.create"
        topics = [event for event in shown if event["type"] == "m.room.topic"]
        assert [event["unsigned"].get("prev_content") for event in topics] == [None, {"topic": "one"}]
        assert shown[-2]["unsigned"]["membership"] == "leave"
        # Nothing of it is news.
        assert "rooms" not in await alice.get("/sync", since=since)
        asked = len(resident.asked)
        assert ids(await read_back(alice, room.room_id, limit=1000)) == ids(shown)
        assert len(resident.asked) == asked, "what is here is not fetched again"
        # And it can be read in the other direction.
        page = await alice.get(f"/rooms/{room.room_id}/messages", dir="f", limit=1000)
        assert ids(page["chunk"]) == ids(shown)
    await check_history(db, resident, before)
    assert not await missing(db)


async def test_little_is_asked_for(serve: Serve, db: Database) -> None:
    resident = past_room()
    talk(resident.room, 95)
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        resident.asked.clear()
        page = await alice.get(f"/rooms/{resident.room.room_id}/messages", dir="b", limit=10)
        assert len(page["chunk"]) == 10
        methods = [method for _, method in resident.asked]
        assert methods.count("backfill") == methods.count("state_ids") == 1
        assert set(methods) <= {"backfill", "state_ids", "event"}
        (wanted, limit), *_ = resident.backfills
        assert (len(wanted), limit) == (1, 30)
        resident.asked.clear()
        # What is here comes first, without asking.
        await alice.get(f"/rooms/{resident.room.room_id}/messages", dir="b", limit=10, **{"from": page["end"]})
        assert resident.asked == []


@pytest.mark.parametrize(("version", "seed"), [("1", 0), ("6", 1), ("11", 2), ("12", 3)])
async def test_a_history_with_branches(serve: Serve, db: Database, version: str, seed: int) -> None:
    """However the graph forks: each event comes after what it follows, and has the state that it has elsewhere."""
    chance = random.Random(seed)
    resident = past_room(version)
    room = resident.room
    people = [DORA, EMIL, *(UserId(f"@user{number}:{RESIDENT}") for number in range(4))]
    for number in range(150):
        recent = [*room.events][-8:]
        ends = chance.sample(recent, chance.choice((1, 1, 2, 3)))
        place = {"prev_events": ends} if chance.random() < 0.6 and number > 10 else {}
        sender, kind = chance.choice(people), chance.random()
        if kind < 0.15:
            content = {"membership": chance.choice(("join", "leave", "ban"))}
            target = chance.choice(people[1:])
            by = DORA if content["membership"] == "ban" else target
            pdu = room.draft(by, "m.room.member", content, state_key=target, **place)
        elif kind < 0.25:
            pdu = room.draft(DORA, "m.room.topic", {"topic": str(number)}, state_key="", **place)
        else:
            pdu = room.draft(sender, "m.room.message", {"body": str(number)}, **place)
        room.receive(pdu)
    last = room.send(DORA, "m.room.message", {"body": "last"}, prev_events=sorted(room.extremities)[:20])
    reachable = ids(room.backfill([last.event_id], 10_000))
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room.room_id)
        shown = await read_back(alice, room.room_id, limit=20)
    expected = {event_id for event_id in reachable if event_id not in room.rejected}
    assert len(ids(shown)) == len(set(ids(shown)))
    assert set(ids(shown)) - {resident.sent[0].event_id} == expected
    await check_history(db, resident, [room.events[event_id] for event_id in expected])
    stored = await stored_events(db)
    for event_id in set(reachable) & room.rejected:
        assert stored[event_id].rejected is not None


async def test_what_is_hidden_is_hidden_and_ends_nothing(serve: Serve, db: Database) -> None:
    """S20, S37: what a user may not see is passed over, however much of it there is; before it, all goes on."""
    resident = past_room()
    room = resident.room
    talk(room, 10)
    room.send(DORA, "m.room.history_visibility", {"history_visibility": "joined"}, state_key="")
    said = talk(room, 150)
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room.room_id)
        shown = await read_back(alice, room.room_id, limit=10)
        assert bodies(shown) == [f"line {number}" for number in range(6, 16)]
        assert shown[0]["type"] == "m.room.create"
        reply = await alice.call("GET", f"/rooms/{room.room_id}/event/{said[-1].event_id}")
        assert reply.status == 404


async def test_memberships_at_that_time_decide(serve: Serve, db: Database) -> None:
    """A user who was in the room before sees what was said then, and not what was said during its absence."""
    resident = past_room()
    room = resident.room
    room.send(DORA, "m.room.history_visibility", {"history_visibility": "joined"}, state_key="")
    async with serve(resident) as site:
        alice, bob = await site.register("alice"), await site.register("bob")
        await enter(alice, room.room_id)
        await push(site, room.say(DORA, "with Alice"))
        await alice.post(f"/rooms/{room.room_id}/leave")
        await tell(db, room)
        talk(room, 5)
        await enter(bob, room.room_id)
        await enter(alice, room.room_id)
        shown = await read_back(alice, room.room_id, limit=10)
        assert bodies(shown) == ["with Alice"]
        assert shown[0]["type"] == "m.room.create"
        assert bodies(await read_back(bob, room.room_id, limit=10)) == []
        members = await alice.get(f"/rooms/{room.room_id}/members", at=(await alice.get("/sync"))["next_batch"])
        assert len(members["chunk"]) == 4


async def test_many_events_take_few_statements(serve: Serve, db: Database) -> None:
    """What is written for a hundred events is written at once."""
    resident = past_room()
    for number in range(40):
        join(resident.room, UserId(f"@user{number}:{RESIDENT}"))
    talk(resident.room, 50)
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        async with db.connection() as conn:
            before = await conn.fetchval(
                "SELECT sum(xact_commit) FROM pg_stat_database WHERE datname = current_database()"
            )
        await alice.get(f"/rooms/{resident.room.room_id}/messages", dir="b", limit=100)
        async with db.connection() as conn:
            await conn.execute("SELECT pg_stat_force_next_flush()")
            after = await conn.fetchval(
                "SELECT sum(xact_commit) FROM pg_stat_database WHERE datname = current_database()"
            )
    assert len(await stored_events(db)) >= 95
    assert after - before < 95


async def test_before_all_members_are_known(serve: Serve, db: Database) -> None:
    """The history of a room that was joined without most members; it stays as it is when these have come."""
    resident = past_room(members=3)
    room = resident.room
    member = UserId(f"@member2:{RESIDENT}")
    talk(room, 40, sender=member)
    resident.omits_members = True
    resident.refusals[(RESIDENT, "state")] = resident.refusals[(ELSEWHERE, "state")] = RemoteUnavailable("away")
    before = resident.history
    async with serve(resident, faster_joins=True) as site:
        alice = await site.register("alice")
        await enter(alice, room.room_id)
        resident.refusals[(RESIDENT, "get_missing_events")] = refused("M_FORBIDDEN")
        missed = talk(room, 3, sender=member)
        await push(site, room.say(member, "news"))
        shown = await read_back(alice, room.room_id, limit=10)
        assert ids(shown) == ids(resident.history)
        async with db.connection() as conn:
            assert await conn.fetchval("SELECT count(*) FROM partial_rooms") == 1
            await conn.execute("UPDATE partial_rooms SET retry_at_ts = 0")
        resident.refusals.clear()

        async def is_complete() -> bool:
            async with db.connection() as conn:
                return not await conn.fetchval("SELECT count(*) FROM partial_rooms")

        await wait_until(is_complete)
        assert ids(await read_back(alice, room.room_id)) == ids(resident.history)
    await check_history(db, resident, [*before, *missed])
