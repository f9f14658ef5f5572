"""Who is asked for history, how often, and what becomes of work that is interrupted."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from homeserver.core.errors import RemoteUnavailable
from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.services.remote import EventJson
from homeserver.services.rooms import backfill, history, past_taking
from storage.bus.memory import MemoryBus
from storage.database import Database
from tests.api.server import Client
from tests.rooms.backfill.conftest import Serve
from tests.rooms.backfill.past_room import (
    DORA,
    RESIDENT,
    PastRoom,
    ask_again,
    check_history,
    enter,
    ids,
    missing,
    past_room,
    push,
    read_back,
    stored_events,
    talk,
)
from tests.rooms.remote_membership.resident import ELSEWHERE, ELSEWHERE_KEY, refused
from tests.waiting import wait_until

CAROL = UserId(f"@carol:{ELSEWHERE}")
METHODS = ("backfill", "state_ids", "event", "event_auth", "state")


def asked(resident: PastRoom, method: str = "backfill") -> list[ServerName]:
    """The servers that were asked."""
    return [ServerName(server) for server, each in resident.asked if each == method]


def join_carol(resident: PastRoom, membership: str = "join") -> None:
    """Lets a user of a third server join, or leave."""
    room = resident.room
    room.key, key = ELSEWHERE_KEY, room.key
    room.name, name = ELSEWHERE, room.name
    room.send(CAROL, "m.room.member", {"membership": membership}, state_key=CAROL)
    room.key, room.name = key, name


@pytest.mark.parametrize("error", [refused("M_FORBIDDEN"), RemoteUnavailable("away")], ids=["refused", "away"])
async def test_what_nobody_has_is_not_asked_for_all_the_time(serve: Serve, db: Database, error: Exception) -> None:
    """Reading ends at the gap; after a time it goes on."""
    resident = past_room()
    talk(resident.room, 10)
    resident.refusals[(RESIDENT, "backfill")] = error
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        for _ in range(3):
            assert ids(await read_back(alice, resident.room.room_id)) == [resident.sent[0].event_id]
        assert len(asked(resident)) == 1
        del resident.refusals[(RESIDENT, "backfill")]
        assert ids(await read_back(alice, resident.room.room_id)) == [resident.sent[0].event_id]
        await ask_again(db)
        assert ids(await read_back(alice, resident.room.room_id)) == ids(resident.history)
    assert len(asked(resident)) == 2


async def test_the_pauses_become_longer(serve: Serve, db: Database) -> None:
    resident = past_room()
    talk(resident.room, 10)
    resident.refusals[(RESIDENT, "backfill")] = refused("M_FORBIDDEN")
    pauses = []
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        for _ in range(8):
            await read_back(alice, resident.room.room_id)
            async with db.connection() as conn:
                pauses.append(
                    await conn.fetchval("SELECT extract(epoch FROM retry_at - now()) / 60 FROM missing_events")
                )
            await ask_again(db)
    rounded = [round(float(pause)) for pause in pauses]
    assert rounded == [1, 4, 16, 64, 256, 1024, 1024, 1024]


async def test_servers_are_asked_in_turn(serve: Serve, db: Database) -> None:
    """Those that cannot be reached, refuse, know nothing, or cannot tell the state are followed by others."""
    resident = past_room()
    join_carol(resident)
    talk(resident.room, 60)
    honest = resident.backfill
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        for method, error in (("backfill", refused("M_FORBIDDEN")), ("state_ids", RemoteUnavailable("away"))):
            resident.asked, resident.refusals = [], {(server, method): error for server in (RESIDENT, ELSEWHERE)}
            assert len(await read_back(alice, resident.room.room_id, limit=10)) == 1
            assert sorted(asked(resident)) == [ELSEWHERE, RESIDENT], method
            await ask_again(db)
        resident.asked, resident.backfill = [], _knows_nothing(resident)  # type: ignore[method-assign]
        assert len(await read_back(alice, resident.room.room_id, limit=10)) == 1
        assert sorted(asked(resident)) == [ELSEWHERE, RESIDENT]
        await ask_again(db)
        resident.backfill = honest  # type: ignore[method-assign]
        resident.refusals, resident.asked = {(RESIDENT, "backfill"): refused("M_FORBIDDEN")}, []
        assert ids(await read_back(alice, resident.room.room_id)) == ids(resident.history)
        assert asked(resident)[-1] == ELSEWHERE


def _knows_nothing(resident: PastRoom) -> Callable[..., Awaitable[Sequence[EventJson]]]:
    async def nothing(via: ServerName, *_: Any, **__: Any) -> Sequence[EventJson]:
        resident.asked.append((via, "backfill"))
        return []

    return nothing


async def test_a_server_that_was_in_the_room_then(serve: Serve, db: Database) -> None:
    """It has left since, and still has what was said before."""
    resident = past_room()
    join_carol(resident)
    talk(resident.room, 10)
    resident.refusals[(RESIDENT, "backfill")] = refused("M_FORBIDDEN")
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        before = resident.history[:-1]
        join_carol(resident, "leave")
        await push(site, [*resident.room.events.values()][-1])
        shown = await read_back(alice, resident.room.room_id)
        assert ids(shown)[: len(before)] == ids(before)
        assert asked(resident)[-1] == ELSEWHERE


async def test_a_server_that_the_room_keeps_out_is_not_asked(serve: Serve, db: Database) -> None:
    """S7"""
    resident = past_room()
    join_carol(resident)
    acl = {"allow": ["*"], "deny": ["ELSEWHERE.example"]}
    resident.room.send(DORA, "m.room.server_acl", acl, state_key="")
    resident.refusals[(RESIDENT, "backfill")] = refused("M_FORBIDDEN")
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        await read_back(alice, resident.room.room_id)
    assert asked(resident) == [RESIDENT]


async def test_who_cannot_wait_comes_again(serve: Serve, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client gets what there is, and a place from where to go on; the work goes on meanwhile."""
    monkeypatch.setattr(history, "_REACH_SECONDS_MAX", 0.1)
    resident = past_room()
    talk(resident.room, 10)
    may_answer, honest = asyncio.Event(), resident.backfill

    async def slow(via: ServerName, room_id: RoomId, event_ids: Any, *, limit: int) -> Sequence[EventJson]:
        await may_answer.wait()
        return await honest(via, room_id, event_ids, limit=limit)

    resident.backfill = slow  # type: ignore[method-assign]
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        path = f"/rooms/{resident.room.room_id}/messages"
        first = await alice.get(path, dir="b", limit=10)
        assert ids(first["chunk"]) == [resident.sent[0].event_id]
        # There is nothing before that, but an end is not said either, nor the same place.
        again = await alice.get(path, dir="b", limit=10, **{"from": first["end"]})
        assert again["chunk"] == []
        assert again["end"] not in (None, first["end"])
        may_answer.set()

        async def is_there() -> bool:
            return len((await alice.get(path, dir="b", limit=10, **{"from": again["end"]}))["chunk"]) == 10

        await wait_until(is_there)
        assert len(resident.backfills) == 1
        assert ids(await read_back(alice, resident.room.room_id)) == ids(resident.history)


async def test_many_readers_on_several_workers_ask_once(serve: Serve, db: Database) -> None:
    resident = past_room()
    talk(resident.room, 120)
    bus = MemoryBus()
    async with serve(resident, bus=bus) as site, serve(resident, bus=bus) as other:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        readers = [alice, replace(alice, server=other)] * 3
        async with asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(read_back(each, resident.room.room_id, limit=20)) for each in readers]
        for task in reading:
            assert ids(task.result()) == ids(resident.history)
    wanted = [event_id for event_ids, _ in resident.backfills for event_id in event_ids]
    assert len(wanted) == len(set(wanted))
    await check_history(db, resident, resident.history[:-1])


async def test_two_rooms_do_not_wait_for_each_other(serve: Serve, db: Database) -> None:
    slow, quick = past_room(), past_room()
    talk(quick.room, 5)
    slow_id, honest, started = slow.room.room_id, slow.backfill, asyncio.Event()

    async def of_either(via: ServerName, room_id: RoomId, event_ids: Any, *, limit: int) -> Sequence[EventJson]:
        if room_id == slow_id:
            started.set()
            await asyncio.Event().wait()
        return await honest(via, room_id, event_ids, limit=limit)

    async with serve(slow) as site:
        alice = await site.register("alice")
        await enter(alice, slow.room.room_id)
        slow.backfill = of_either  # type: ignore[method-assign]
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(read_back(alice, slow.room.room_id))
            await started.wait()
            slow.room, first = quick.room, slow.room
            await enter(alice, quick.room.room_id)
            assert len(await read_back(alice, quick.room.room_id)) > 5
            slow.room = first
            waiting.cancel()


@pytest.mark.parametrize("method", METHODS[:3])
async def test_a_server_that_stops_at_its_work_does_it_again(serve: Serve, db: Database, method: str) -> None:
    """Wherever it is cut off: nothing is half there, and the next one does it."""
    resident = past_room()
    talk(resident.room, 40)
    reached, honest = asyncio.Event(), getattr(resident, method)

    async def hang(*_: Any, **__: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        setattr(resident, method, hang)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(read_back(alice, resident.room.room_id, limit=10))
            await reached.wait()
            reading.cancel()
    placed = [event for event in (await stored_events(db)).values() if event.topological is not None]
    assert len(placed) == 1
    setattr(resident, method, honest)
    await _reads_all(serve, resident, alice)
    await check_history(db, resident, resident.history[:-1])


async def _reads_all(serve: Serve, resident: PastRoom, alice: Client) -> None:
    async with serve(resident) as site:
        alice = replace(alice, server=site)
        assert ids(await read_back(alice, resident.room.room_id)) == ids(resident.history)


async def test_a_transaction_that_fails_leaves_nothing(
    serve: Serve, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours ends neither the request nor the server, and is not repeated all the time."""
    resident = past_room()
    talk(resident.room, 40)
    honest, calls = past_taking.place_events, []

    async def fails_at_last(*args: Any) -> None:
        calls.append(args)
        await honest(*args)
        raise RuntimeError("a mistake")

    monkeypatch.setattr(past_taking, "place_events", fails_at_last)
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        for _ in range(3):
            assert ids(await read_back(alice, resident.room.room_id)) == [resident.sent[0].event_id]
        assert len(calls) == 1
        placed = [event for event in (await stored_events(db)).values() if event.topological is not None]
        assert len(placed) == 1
        monkeypatch.setattr(past_taking, "place_events", honest)
        await ask_again(db)
        assert ids(await read_back(alice, resident.room.room_id)) == ids(resident.history)


async def test_a_lease_that_was_left_behind_is_waited_for(
    serve: Serve, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a worker that has died; it holds nobody up for long."""
    monkeypatch.setattr(backfill, "WAIT_SECONDS_MAX", 20.0)
    resident = past_room()
    talk(resident.room, 5)
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id)
        async with db.connection() as conn:
            await conn.execute(
                "INSERT INTO leases (name, holder, expires_at)"
                " VALUES ($1, 'dead', clock_timestamp() + interval '0.5 s')",
                f"history:{resident.room.room_id}",
            )
        assert ids(await read_back(alice, resident.room.room_id)) == ids(resident.history)
    assert not await missing(db)
