"""Gaps in the middle of what this server knows, after an outage in which more was missed than could be had at once."""

import json
from typing import Any

from homeserver.core.pdu import Pdu
from storage.database import Database
from tests.api.server import Client, Site
from tests.rooms.backfill.conftest import Serve
from tests.rooms.backfill.past_room import (
    DORA,
    EMIL,
    RESIDENT,
    PastRoom,
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
from tests.rooms.remote_membership.resident import refused

WIDE = json.dumps({"room": {"timeline": {"limit": 50}}})


def keep_back(resident: PastRoom) -> None:
    """Lets the other server refuse to say what was missed when it tells the next event."""
    resident.refusals[(RESIDENT, "get_missing_events")] = refused("M_FORBIDDEN")


async def miss(site: Site, resident: PastRoom, number: int = 60) -> list[Pdu]:
    """So much is said without our server, with a change of state in the middle, and then something with it.

    All that was said since.
    """
    keep_back(resident)
    said = [
        *talk(resident.room, number // 2),
        resident.room.send(DORA, "m.room.topic", {"topic": "missed"}, state_key=""),
        *talk(resident.room, number // 2),
        resident.room.say(EMIL, "there again"),
    ]
    assert set((await push(site, said[-1])).keys()) == {said[-1].event_id}
    return said


async def timeline(client: Client, room_id: str, since: str | None = None, **query: Any) -> Any:
    """What a sync tells of a room."""
    start = {} if since is None else {"since": since}
    return (await client.get("/sync", **start, **query))["rooms"]["join"][room_id]


async def test_what_was_missed_is_read_at_last(serve: Serve, db: Database) -> None:
    resident = past_room()
    room_id = resident.room.room_id
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room_id)
        await push(site, resident.room.say(EMIL, "before"))
        since = (await alice.get("/sync"))["next_batch"]
        said = await miss(site, resident)
        assert await missing(db)
        told = await timeline(alice, room_id, since, filter=WIDE)
        assert told["timeline"]["limited"]
        assert "there again" in bodies(told["timeline"]["events"])
        assert "before" not in bodies(told["timeline"]["events"])
        assert [event["content"] for event in told["state"]["events"] if event["type"] == "m.room.topic"] == [
            {"topic": "missed"}
        ]
        before = await read_back(alice, room_id, **{"from": told["timeline"]["prev_batch"]})
        shown = [*before, *told["timeline"]["events"]]
        assert ids(shown) == ids(resident.history)
        # What lies at the gap is numbered within the room that was left for it.
        stored = await stored_events(db)
        places = [stored[pdu.event_id].topological or 0 for pdu in said]
        assert places == sorted(set(places))
        # A sync that comes when all has been filled tells the same.
        later = await timeline(alice, room_id, since, filter=WIDE)
        assert later["timeline"]["prev_batch"] == told["timeline"]["prev_batch"]
        assert later["timeline"]["limited"]
        assert ids(await read_back(alice, room_id)) == ids(shown)
    await check_history(db, resident, [pdu for pdu in said if stored[pdu.event_id].position is None])


async def test_a_sync_that_begins_behind_a_gap_says_so(serve: Serve, db: Database) -> None:
    """Also if all that came is a single event, and if what was missed has been fetched for others meanwhile."""
    resident = past_room()
    room_id = resident.room.room_id
    keep_back(resident)
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room_id)
        since = (await alice.get("/sync"))["next_batch"]
        await push(site, resident.room.say(EMIL, "one"))
        told = await timeline(alice, room_id, since)
        assert (bodies(told["timeline"]["events"]), told["timeline"]["limited"]) == (["one"], False)
        since = (await alice.get("/sync", since=since))["next_batch"]
        missed = talk(resident.room, 3)
        await push(site, resident.room.say(EMIL, "two"))
        for _ in range(2):
            told = await timeline(alice, room_id, since)
            assert (bodies(told["timeline"]["events"]), told["timeline"]["limited"]) == (["two"], True)
            before = await read_back(alice, room_id, **{"from": told["timeline"]["prev_batch"]})
            assert ids(before)[-3:] == ids(missed)
        since = (await alice.get("/sync", since=since))["next_batch"]
        await push(site, resident.room.say(EMIL, "three"))
        told = await timeline(alice, room_id, since)
        assert (bodies(told["timeline"]["events"]), told["timeline"]["limited"]) == (["three"], False)


async def test_two_gaps_are_filled_one_after_the_other(serve: Serve, db: Database) -> None:
    resident = past_room("12")
    room_id = resident.room.room_id
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room_id)
        await miss(site, resident)
        await miss(site, resident)
        assert len(await missing(db)) == 3
        assert ids(await read_back(alice, room_id)) == ids(resident.history)
        assert not await missing(db)


async def test_a_gap_between_what_both_sides_said(serve: Serve, db: Database) -> None:
    """What was said here meanwhile is followed by what lies in the gap: the room goes on with both."""
    resident = past_room()
    room_id = resident.room.room_id
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room_id)
        base = sorted(resident.room.extremities)
        await alice.put(f"/rooms/{room_id}/send/m.room.message/1", {"body": "alone", "msgtype": "m.text"})
        for number in range(10):
            resident.room.send(EMIL, "m.room.message", {"body": str(number)}, prev_events=base)
            base = [[*resident.room.events][-1]]
        await tell(db, resident.room)
        joined = resident.room.say(EMIL, "both sides")
        talk(resident.room, 10)
        keep_back(resident)
        last = resident.room.say(EMIL, "there again")
        await push(site, last)
        shown = await read_back(alice, room_id)
        assert set(ids(shown)) == set(ids(resident.history))
        order = {event_id: number for number, event_id in enumerate(ids(shown))}
        assert order[joined.event_id] < order[last.event_id]
        await alice.put(f"/rooms/{room_id}/send/m.room.message/2", {"body": "on we go", "msgtype": "m.text"})
        await tell(db, resident.room)
        assert not resident.room.rejected
        state = {
            (event["type"], event["state_key"]): event["event_id"]
            for event in await alice.get(f"/rooms/{room_id}/state")
        }
        assert state == dict(resident.room.current_state)


async def test_what_is_missing_and_comes_by_itself_is_missed_no_more(serve: Serve, db: Database) -> None:
    resident = past_room()
    room_id = resident.room.room_id
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room_id)
        await miss(site, resident)
        (gap,) = [pdu for pdu in resident.history if pdu.event_id in await missing(db) and "body" in pdu.content]
        await push(site, gap)
        assert gap.event_id not in await missing(db)
        shown = await read_back(alice, room_id)
        assert set(ids(shown)) == set(ids(resident.history))
        assert len(ids(shown)) == len(set(ids(shown)))
