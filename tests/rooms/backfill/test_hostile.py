"""Servers that lie about the past: what they say is taken as far as it is signed, connected and allowed, no further."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from homeserver.core.event_auth.auth_events import member_slot
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.signing import sign_event
from homeserver.services.remote import EventJson, StateIds
from storage.database import Database
from tests.rooms.backfill.conftest import Serve
from tests.rooms.backfill.past_room import (
    DORA,
    EMIL,
    RESIDENT,
    PastRoom,
    ask_again,
    bodies,
    check_history,
    enter,
    ids,
    past_room,
    read_back,
    stored_events,
    talk,
)
from tests.rooms.remote_membership.resident import ELSEWHERE, ELSEWHERE_KEY

MALLORY = UserId(f"@mallory:{RESIDENT}")


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
async def test_events_that_do_not_belong_there(serve: Serve, db: Database, version: str) -> None:
    """S1, S6: of other rooms, signed by nobody or by somebody else, or led to by nothing."""
    resident, other = past_room(version), past_room(version)
    room = resident.room
    talk(room, 20)
    template = room.draft(EMIL, "m.room.message", {"body": "lie"}).json
    bare = {name: value for name, value in template.items() if name not in ("signatures", "event_id")}
    lies: Sequence[EventJson] = [
        *(pdu.json for pdu in talk(other.room, 3)),
        {**template, "signatures": {}},
        sign_event({**template, "signatures": {}}, ELSEWHERE, ELSEWHERE_KEY, room.version),
        room.forge({**bare, "sender": f"@alice:{ELSEWHERE}", "event_id": f"$x:{ELSEWHERE}"}),
        room.forge({**bare, "event_id": f"$unconnected:{RESIDENT}"}),
        {"type": 7},
        {},
    ]
    resident.lies = list(lies)
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room.room_id)
        shown = await read_back(alice, room.room_id)
        assert ids(shown) == ids(resident.history)
    stored = await stored_events(db)
    assert stored.keys() == set(ids(resident.history))
    await check_history(db, resident, resident.history[:-1])


async def test_an_answer_is_not_larger_than_was_asked_for(serve: Serve, db: Database) -> None:
    resident = past_room()
    talk(resident.room, 300)

    async def everything(via: ServerName, room_id: RoomId, event_ids: Any, *, limit: int) -> Sequence[EventJson]:
        return [pdu.json for pdu in resident.room.backfill(event_ids, 1000)]

    resident.backfill = everything  # type: ignore[method-assign]
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        await alice.get(f"/rooms/{resident.room.room_id}/messages", dir="b", limit=10)
        assert sum(event.topological is not None for event in (await stored_events(db)).values()) == 31


async def test_rejected_events_do_not_end_the_history(serve: Serve, db: Database) -> None:
    """S37: however many the other server has that it should not have accepted."""
    resident = past_room()
    room = resident.room
    good = [*resident.history, *talk(room, 5)]
    bad = []
    for number in range(120):
        pdu = room.draft(MALLORY, "m.room.message", {"body": f"bad {number}"}, prev_events=[[*room.events][-1]])
        room.events[pdu.event_id], room.states_before[pdu.event_id] = pdu, room.current_state
        bad.append(pdu)
    last = room.send(EMIL, "m.room.message", {"body": "last"}, prev_events=[bad[-1].event_id], cites=room.current_state)
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room.room_id)
        shown = await read_back(alice, room.room_id, limit=10)
        assert ids(shown) == [*ids(good), last.event_id, resident.sent[0].event_id]
    stored = await stored_events(db)
    assert all(stored[pdu.event_id].rejected and stored[pdu.event_id].topological is None for pdu in bad)


async def test_what_the_state_at_that_time_did_not_allow(serve: Serve, db: Database) -> None:
    """Events that cite what allows them, but stand where it is gone, are rejected; and what cites them too."""
    resident = past_room()
    room = resident.room
    cites = room.current_state
    banned = room.send(DORA, "m.room.member", {"membership": "ban"}, state_key=EMIL)
    late = room.draft(EMIL, "m.room.topic", {"topic": "by Emil"}, state_key="", cites=cites)
    again = room.draft(EMIL, "m.room.member", {"membership": "join"}, state_key=EMIL, cites=cites)
    for pdu in (late, again):
        room.receive(pdu)
    cites = {**cites, member_slot(EMIL): again.event_id}
    citing = room.draft(EMIL, "m.room.message", {"body": "x"}, prev_events=[again.event_id], cites=cites)
    room.receive(citing)
    assert {late.event_id, again.event_id, citing.event_id} <= room.rejected
    last = room.send(
        DORA, "m.room.message", {"body": "last"}, prev_events=[banned.event_id, late.event_id, citing.event_id]
    )
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room.room_id)
        shown = await read_back(alice, room.room_id)
        assert bodies(shown) == ["last"]
        assert {late.event_id, again.event_id, citing.event_id}.isdisjoint(ids(shown))
        state = await alice.get(f"/rooms/{room.room_id}/state")
        assert "by Emil" not in str(state)
    stored = await stored_events(db)
    assert all(stored[pdu.event_id].rejected for pdu in (late, again, citing))
    await check_history(db, resident, [last, banned])


def follower(resident: PastRoom, event_id: EventId, *prev_ids: str, **members: Any) -> EventJson:
    """A message with an id of its own choice, as the first room versions allow."""
    template = resident.room.draft(EMIL, "m.room.message", {"body": f"lie {event_id}"}).json
    references = [[prev_id, {"sha256": "AA"}] for prev_id in prev_ids]
    return resident.room.forge({**template, "event_id": event_id, "prev_events": references, **members})


async def test_loops_end(serve: Serve, db: Database) -> None:
    """S13, S14: the first room versions let events choose their ids, and so follow each other."""
    resident = past_room("1")
    last = talk(resident.room, 5)[-1]
    other = EventId(f"$other:{RESIDENT}")
    lies = [follower(resident, last.event_id, other), follower(resident, other, last.event_id)]

    async def in_a_circle(*_: Any, **__: Any) -> Sequence[EventJson]:
        return lies

    honest, resident.backfill = resident.backfill, in_a_circle  # type: ignore[method-assign]
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        assert ids(await read_back(alice, resident.room.room_id)) == [resident.sent[0].event_id]
        lies[:] = [follower(resident, last.event_id, last.event_id)]
        await ask_again(db)
        assert ids(await read_back(alice, resident.room.room_id)) == [resident.sent[0].event_id]
        resident.backfill = honest  # type: ignore[method-assign]
        await ask_again(db)
        assert ids(await read_back(alice, resident.room.room_id)) == ids(resident.history)


async def test_ids_of_another_room(serve: Serve, db: Database) -> None:
    """S10: events are not taken out of another room, nor do they follow one."""
    resident, other = past_room("1"), past_room("1")
    last, there = talk(resident.room, 5)[-1], talk(other.room, 2)[-1]
    async with serve(other) as site:
        alice = await site.register("alice")
        await enter(alice, other.room.room_id)
        await read_back(alice, other.room.room_id)
    before = (await stored_events(db))[there.event_id]
    lies = [
        follower(resident, last.event_id, there.event_id),
        follower(resident, there.event_id, last.prev_events[0]),
    ]

    async def thief(*_: Any, **__: Any) -> Sequence[EventJson]:
        return lies

    resident.backfill = thief  # type: ignore[method-assign]
    async with serve(resident) as site:
        alice = replace(alice, server=site)
        await enter(alice, resident.room.room_id)
        assert ids(await read_back(alice, resident.room.room_id)) == [resident.sent[0].event_id]
    assert (await stored_events(db))[there.event_id] == before


async def test_a_room_has_one_beginning(serve: Serve, db: Database) -> None:
    """S10: a history that leads to another create event is that of another room."""
    resident = past_room("1")
    last = talk(resident.room, 5)[-1]
    created = resident.room.current("m.room.create")
    assert created is not None
    second = EventId(f"$second:{RESIDENT}")
    lies = [
        follower(resident, last.event_id, second),
        resident.room.forge({**created.json, "event_id": second, "origin_server_ts": 7}),
    ]

    async def another_beginning(*_: Any, **__: Any) -> Sequence[EventJson]:
        return lies

    async def no_state(*_: Any, **__: Any) -> StateIds:
        return StateIds([second], [])

    resident.backfill, resident.state_ids = another_beginning, no_state  # type: ignore[method-assign]
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        assert ids(await read_back(alice, resident.room.room_id)) == [resident.sent[0].event_id]
    stored = await stored_events(db)
    assert all(stored[each].topological is None for each in (second, last.event_id) if each in stored)


@pytest.mark.parametrize("claim", ["nothing", "no_create", "of_another_room", "nonsense"])
async def test_a_state_that_is_none_is_not_believed(serve: Serve, db: Database, claim: str) -> None:
    """S12: without a state there is no history from this server; from another one there is."""
    resident, other = past_room("6"), past_room("6")
    room = resident.room
    talk(room, 60)
    state = list(room.current_state.values())
    claims = {
        "nothing": [],
        "no_create": [each for each in state if room.events[each].type != "m.room.create"],
        "of_another_room": list(other.room.current_state.values()),
        "nonsense": [EventId(f"$nothing{number}") for number in range(500)],
    }

    async def claimed(*_: Any) -> StateIds:
        return StateIds(claims[claim], claims[claim])

    honest, resident.state_ids = resident.state_ids, claimed  # type: ignore[method-assign]
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room.room_id)
        before = await alice.get(f"/rooms/{room.room_id}/state")
        assert ids(await read_back(alice, room.room_id, limit=10)) == [resident.sent[0].event_id]
        assert len(resident.asked) < 150
        assert await alice.get(f"/rooms/{room.room_id}/state") == before
        resident.state_ids = honest  # type: ignore[method-assign]
        await ask_again(db)
        assert ids(await read_back(alice, room.room_id, limit=10)) == ids(resident.history)
        assert await alice.get(f"/rooms/{room.room_id}/state") == before


async def test_a_state_that_is_made_up_changes_nothing_but_the_past(serve: Serve, db: Database) -> None:
    """S12: whatever somebody claims of the past, the room is now as it was."""
    resident = past_room()
    room = resident.room
    talk(room, 60)
    created = room.current("m.room.create")
    assert created is not None

    async def claimed(*_: Any) -> StateIds:
        return StateIds([created.event_id], [])

    resident.state_ids = claimed  # type: ignore[method-assign]
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room.room_id)
        before = await alice.get(f"/rooms/{room.room_id}/state")
        shown = await read_back(alice, room.room_id, limit=10, pages_max=200)
        # What it has denied by that is lost; what was before is not.
        assert [shown[0]["event_id"], shown[-1]["event_id"]] == [created.event_id, resident.sent[0].event_id]
        assert await alice.get(f"/rooms/{room.room_id}/state") == before
        members = await alice.get(f"/rooms/{room.room_id}/joined_members")
        assert len(members["joined"]) == 3
        await alice.put(f"/rooms/{room.room_id}/send/m.room.message/1", {"body": "still here"})
