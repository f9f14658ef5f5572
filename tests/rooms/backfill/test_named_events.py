"""Single events of the past, which another server has named by their time."""

from typing import Any

from homeserver.core.pdu import Pdu
from storage.database import Database
from tests.api.server import Client
from tests.rooms.backfill.conftest import Serve
from tests.rooms.backfill.past_room import (
    PastRoom,
    check_history,
    enter,
    ids,
    missing,
    past_room,
    read_back,
    stored_events,
    talk,
)


async def jump(client: Client, resident: PastRoom, pdu: Pdu) -> Any:
    """Asks for the event of a day on which there was one."""
    resident.times = {"f": pdu, "b": pdu}
    path = f"/_matrix/client/v1/rooms/{resident.room.room_id}/timestamp_to_event"
    return await client.get(path, ts=pdu.origin_server_ts, dir="f")


async def test_jumping_to_a_day_from_before(serve: Serve, db: Database) -> None:
    """The event is there with what was before it; what lies between comes when somebody reads there."""
    resident = past_room()
    room = resident.room
    said = talk(room, 150)
    day = said[60]
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room.room_id)
        assert await jump(alice, resident, day) == {
            "event_id": day.event_id,
            "origin_server_ts": day.origin_server_ts,
        }
        path = f"/rooms/{room.room_id}"
        assert (await alice.get(f"{path}/event/{day.event_id}"))["content"]["body"] == day.content["body"]
        context = await alice.get(f"{path}/context/{day.event_id}", limit=10)
        assert ids(context["events_before"]) == ids(said[55:60][::-1])
        older = await read_back(alice, room.room_id, **{"from": context["start"]})
        assert ids(older) == ids(resident.history)[: -len(said) + 55 - 1]
        # From the end of the room, all is there in order, and nothing twice.
        assert ids(await read_back(alice, room.room_id)) == ids(resident.history)
    await check_history(db, resident, resident.history[:-1])
    assert not await missing(db)


async def test_several_days_stand_in_their_order(serve: Serve, db: Database) -> None:
    resident = past_room()
    said = talk(resident.room, 250)
    days = [said[number] for number in (120, 40, 200, 80)]
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        for day in days:
            await jump(alice, resident, day)
        stored = await stored_events(db)
        places = [stored[day.event_id].topological or 0 for day in sorted(days, key=said.index)]
        assert places == sorted(set(places))
        assert ids(await read_back(alice, resident.room.room_id)) == ids(resident.history)


async def test_what_cannot_be_had_is_not_told(serve: Serve, db: Database) -> None:
    resident = past_room()
    said = talk(resident.room, 5)
    resident.withheld = set(ids(said))  # type: ignore[arg-type]
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        answer = await jump(alice, resident, said[2])
        assert answer["event_id"] == resident.sent[0].event_id
        assert said[2].event_id not in await stored_events(db)


async def test_where_nothing_is_missing_nothing_is_fetched(serve: Serve, db: Database) -> None:
    """An event that belongs nowhere is not made a part of the history because somebody names it."""
    resident = past_room()
    said = talk(resident.room, 5)
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        before = await read_back(alice, resident.room.room_id)
        place = {"prev_events": [said[1].event_id], "now": said[2].origin_server_ts - 1}
        stray = resident.room.draft(said[0].sender, "m.room.message", {"body": "stray"}, **place)
        resident.room.events[stray.event_id] = stray
        resident.room.states_before[stray.event_id] = resident.room.current_state
        answer = await jump(alice, resident, said[2])
        assert answer["event_id"] == said[2].event_id
        await jump(alice, resident, stray)
        assert ids(await read_back(alice, resident.room.room_id)) == ids(before)
