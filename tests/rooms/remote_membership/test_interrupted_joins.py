"""Joins that are interrupted, repeated, or attempted by several at once: nothing is left half done."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from homeserver.core.ids import UserId
from homeserver.services.remote import SentJoin
from homeserver.services.rooms import room_import
from storage.bus.memory import MemoryBus
from storage.database import Database
from storage.errors import DatabaseUnavailable
from tests.api.server import CONFIG, SERVER_NAME, composed_server, refused
from tests.rooms.remote_membership.conftest import Serve, clock_of_today, key_of
from tests.rooms.remote_membership.resident import DORA, RESIDENT, join, open_room
from tests.rooms.remote_membership.test_joining import check_whole, enter
from tests.rooms.remote_membership.test_partial_state import push

GONE = UserId(f"@gone:{RESIDENT}")


def failing_once(function: Callable[..., Any], *, times: int = 1) -> Callable[..., Any]:
    """A function that fails at first, after it has done its work or not."""
    left = [times]

    async def call(*args: Any, **kwargs: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise DatabaseUnavailable
        return await function(*args, **kwargs)

    return call


@pytest.mark.parametrize(
    "step",
    ["insert_slots", "derive_state", "put_entries", "put_other_members", "delete_absent_members", "enter_room"],
)
async def test_a_join_is_repeated_after_any_step_has_failed(
    serve: Serve, db: Database, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """What the first attempt has left is no part of what the second one makes."""
    resident = open_room(members=3)
    room_id = resident.room.room_id
    async with serve(resident) as site:
        alice = await site.register("alice")
        since = (await alice.get("/sync"))["next_batch"]
        join(resident.room, GONE)
        resident.room.send(DORA, "m.room.topic", {"topic": "old"}, state_key="")
        topic = resident.room.current("m.room.topic")
        assert topic is not None
        monkeypatch.setattr(room_import, step, failing_once(getattr(room_import, step)))
        refused(await enter(alice, room_id, RESIDENT), 503, "M_UNKNOWN")
        assert "rooms" not in await alice.get("/sync", since=since)
        refused(await alice.call("GET", f"/rooms/{room_id}/state"), 403, "M_FORBIDDEN")

        def forget(answer: SentJoin) -> SentJoin:
            kept = [event for event in answer.state if event["sender"] != GONE and event["type"] != "m.room.topic"]
            return replace(answer, state=kept)

        resident.answer = forget
        assert (await enter(alice, room_id, RESIDENT)).status == 200
        await check_whole(db, room_id)
        members = await alice.get(f"/rooms/{room_id}/joined_members")
        assert GONE not in members["joined"]
        assert len(members["joined"]) == 5
        refused(await alice.call("GET", f"/rooms/{room_id}/state/m.room.topic/"), 404, "M_NOT_FOUND")


async def test_who_has_lost_the_lease_writes_nothing_more(
    serve: Serve, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S40: another process has taken over; only one of both makes the room."""
    resident = open_room()

    async def is_lost(*_: Any, **__: Any) -> bool:
        return False

    async with serve(resident) as site:
        alice = await site.register("alice")
        with monkeypatch.context() as patch:
            patch.setattr(room_import, "hold_lease", is_lost)
            refused(await enter(alice, resident.room.room_id, RESIDENT), 503, "M_UNKNOWN")
        async with db.connection() as conn:
            assert not await conn.fetchval("SELECT count(*) FROM current_state")
            assert not await conn.fetchval("SELECT count(*) FROM leases WHERE name LIKE 'join:%'")
        assert (await enter(alice, resident.room.room_id, RESIDENT)).status == 200


async def test_users_of_several_workers_enter_a_room_at_once(database_url: str, db: Database) -> None:
    """S40: one of them asks the other server, the rest find the room here."""
    resident = open_room()
    room_id = resident.room.room_id
    bus, clock = MemoryBus(), clock_of_today()
    async with (
        composed_server(database_url, CONFIG, clock=clock, bus=bus, remotes=resident.remotes) as one,
        composed_server(database_url, CONFIG, clock=clock, bus=bus, remotes=resident.remotes) as other,
    ):
        for site in (one, other):
            resident.know(SERVER_NAME, key_of(site))
        clients = [await site.register(f"user{number}") for number, site in enumerate((one, other, one, other))]
        async with asyncio.TaskGroup() as tasks:
            joins = [tasks.create_task(enter(client, room_id, RESIDENT)) for client in clients]
        assert [each.result().status for each in joins] == [200] * len(clients)
        assert [method for _, method in resident.asked] == ["make_join", "send_join"]
        joined = (await clients[0].get(f"/rooms/{room_id}/joined_members"))["joined"]
        assert set(joined) == {DORA, *(client.user_id for client in clients)}
        await check_whole(db, room_id)


async def test_what_is_said_while_we_come_in_is_not_lost(serve: Serve) -> None:
    """The other server tells of the room as soon as it has let us in, which is before we know the room."""
    resident = open_room()
    room_id = resident.room.room_id
    pushed: list[asyncio.Task[Any]] = []
    async with serve(resident) as site, asyncio.TaskGroup() as tasks:
        alice = await site.register("alice")

        def speak(answer: SentJoin) -> SentJoin:
            pushed.append(tasks.create_task(push(site, resident.room.say(DORA, "welcome"))))
            return answer

        resident.answer = speak
        assert (await enter(alice, room_id, RESIDENT)).status == 200
        assert list((await pushed[0]).values()) == [{}]
        told = (await alice.get("/sync"))["rooms"]["join"][room_id]["timeline"]["events"]
        assert told[-1]["content"]["body"] == "welcome"
