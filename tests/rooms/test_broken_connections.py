"""Connections that break while events are added: all of an append is there afterwards, or nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from homeserver.core.errors import RoomInUse, UnavailableForNow
from homeserver.core.ids import RoomId
from homeserver.core.room_versions import DEFAULT_ROOM_VERSION
from homeserver.services.rooms.drafts import Draft
from storage.database import Connection
from tests.rooms.workers import ALICE, BOB, Worker, member, message
from tests.waiting import wait_until

TABLES = "rooms, events, state_snapshots, current_state, state_history, memberships, membership_changes, room_summaries"

KILL_WAITING = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND query LIKE '%append_events%'
"""


@asynccontextmanager
async def _locked(database_url: str, room_id: RoomId) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Another session, which holds the lock of a room."""
    holder = await asyncpg.connect(database_url)
    try:
        async with holder.transaction():
            await holder.fetchval("SELECT room_nid FROM rooms WHERE room_id = $1 FOR UPDATE", room_id)
            yield holder
    finally:
        await holder.close()


async def _counts(conn: Connection) -> dict[str, int]:
    return {table: await conn.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES.split(", ")}


async def test_an_append_whose_connection_is_killed_leaves_nothing(worker: Worker, database_url: str) -> None:
    room_id = await worker.create_room()
    await worker.add(room_id, message("warm"))
    async with worker.db.connection() as conn:
        before = await _counts(conn)
    async with _locked(database_url, room_id):

        async def add() -> None:
            with pytest.raises(UnavailableForNow):
                await worker.add(room_id, member(BOB, "join"), message("never", sender=BOB))

        async def kill() -> None:
            async def was_killed() -> bool:
                async with worker.db.connection() as conn:
                    return bool(await conn.fetchval(KILL_WAITING))

            await wait_until(was_killed)

        async with asyncio.TaskGroup() as group:
            group.create_task(add())
            group.create_task(kill())
    async with worker.db.connection() as conn:
        assert await _counts(conn) == before
    await worker.add(room_id, member(BOB, "join"), message("now", sender=BOB))


async def test_a_room_that_cannot_be_created_leaves_nothing(worker: Worker) -> None:
    drafts = [
        Draft(type="m.room.create", sender=ALICE, state_key="", content={"room_version": "12"}),
        member(ALICE, "join"),
        Draft(type="m.room.join_rules", sender=ALICE, state_key="", content={"join_rule": "public"}),
    ]

    async def fail(conn: Connection, room_id: RoomId) -> None:
        assert await conn.fetchval("SELECT count(*) FROM events") == 3
        raise RoomInUse("taken")

    async with worker.db.connection() as conn:
        before = await _counts(conn)
    with pytest.raises(RoomInUse):
        await worker.appender.create(DEFAULT_ROOM_VERSION, drafts, along_with=fail)
    async with worker.db.connection() as conn:
        assert await _counts(conn) == before


async def test_a_batch_is_added_as_a_whole_or_not_at_all(worker: Worker) -> None:
    room_id = await worker.create_room()
    await worker.add(room_id, message("once", transaction_id="t"))
    async with worker.db.connection() as conn:
        before = await _counts(conn)
    with pytest.raises(Exception, match="events_transaction"):
        await worker.add(room_id, member(BOB, "join"), message("twice", transaction_id="t"))
    async with worker.db.connection() as conn:
        assert await _counts(conn) == before
    await worker.add(room_id, message("after"))


async def test_a_lane_is_free_again_after_a_cancelled_append(worker: Worker, database_url: str) -> None:
    room_id = await worker.create_room()
    async with _locked(database_url, room_id):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await worker.add(room_id, message("given up"))
    await worker.add(room_id, message("after"))
    async with worker.db.connection() as conn:
        bodies = await conn.fetch("SELECT client_json FROM events WHERE type = 'm.room.message'")
    assert ["after" in row["client_json"] for row in bodies] == [True]
