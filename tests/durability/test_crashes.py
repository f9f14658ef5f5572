"""The server is killed while it works: what it has acknowledged stays, once, and what it has not can be sent again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.durability.conftest import DurablePostgres
from tests.durability.writers import Writer, check_follower, check_nothing_lost, following, writing
from tests.processes import HomeserverProcess, homeserver
from tests.real_client import Answer, Client, Follower, new_device, new_user
from tests.waiting import wait_until

WRITERS = 6


@dataclass
class Conversation:
    """Writers who share rooms with each other and with a reader."""

    server: HomeserverProcess
    reader: Client
    rooms: list[str]
    writers: list[Writer]

    @property
    def acknowledged(self) -> int:
        """How many messages have been acknowledged."""
        return sum(len(writer.acknowledged) for writer in self.writers)


@asynccontextmanager
async def conversation(server: HomeserverProcess) -> AsyncIterator[Conversation]:
    """Two rooms and the users in them."""
    async with AsyncExitStack() as stack:
        reader = await stack.enter_async_context(new_user(server.url, "reader"))
        rooms = [await reader.create_room(preset="public_chat") for _ in range(2)]
        writers = []
        for number in range(WRITERS):
            client = await stack.enter_async_context(new_user(server.url, f"writer{number}"))
            for room_id in rooms:
                await client.post(f"/rooms/{quote(room_id)}/join")
            writers.append(Writer(client, f"writer{number}", rooms))
        yield Conversation(server, reader, rooms, writers)


async def test_a_killed_server_loses_nothing(database_url: str, tmp_path: Path) -> None:
    async with homeserver(tmp_path / "server", database_url) as server, conversation(server) as talk:
        follower = Follower(talk.reader)
        await follower.step()
        async with writing(talk.writers):
            for _ in range(2):
                goal = talk.acknowledged + 60
                await wait_until(lambda goal=goal: talk.acknowledged >= goal, seconds_max=30)
                await server.kill()
                await server.start()
        await check_nothing_lost(talk.writers, talk.reader)
        for writer in talk.writers:
            for text, event_id in list(writer.acknowledged.items())[-5:]:
                assert await writer.repeat(text) == event_id
        await check_nothing_lost(talk.writers, talk.reader)
        await follower.step()
        check_follower(follower, talk.writers)
        assert all(writer.disconnections for writer in talk.writers)
        assert server.mistakes == []


@pytest.mark.seconds_max(120)
@pytest.mark.parametrize("way", ["stop", "crash"])
async def test_postgresql_goes_away_and_comes_back(postgres: DurablePostgres, tmp_path: Path, way: str) -> None:
    async with homeserver(tmp_path / "server", postgres.url) as server, conversation(server) as talk:
        follower = Follower(talk.reader)
        await follower.step()
        async with following([follower], talk.writers):
            async with writing(talk.writers):
                await wait_until(lambda: talk.acknowledged >= 40, seconds_max=30)
                await (postgres.stop() if way == "stop" else postgres.crash())
                await check_unavailable(server, talk)
                before = talk.acknowledged
                await postgres.start()
                await wait_until(lambda: talk.acknowledged >= before + 40, seconds_max=40)
                assert await server.is_healthy()
        assert {status for writer in talk.writers for status in writer.refusals} == {503}
        check_follower(follower, talk.writers)
        await check_nothing_lost(talk.writers, talk.reader)
        assert server.mistakes == []


async def check_unavailable(server: HomeserverProcess, talk: Conversation) -> None:
    """While the database is away, everything that needs it says so, quickly and in the specification's form."""
    await wait_until(lambda: all(writer.refusals[503] for writer in talk.writers), seconds_max=20)
    assert not await server.is_healthy()
    answers: list[Answer] = [
        await talk.reader.call("GET", "/sync"),
        await talk.reader.call("GET", "/joined_rooms"),
        await talk.reader.call("POST", "/createRoom", {}),
    ]
    assert [answer.status for answer in answers] == [503, 503, 503]
    assert all(answer.body["errcode"] == "M_UNKNOWN" and answer.headers["Retry-After"] for answer in answers)
    assert (await talk.reader.call("GET", "/_matrix/client/versions")).status == 200


async def test_a_stopping_server_answers_who_waits(database_url: str, tmp_path: Path) -> None:
    async with homeserver(tmp_path / "server", database_url) as server, conversation(server) as talk:
        since = (await talk.reader.sync())["next_batch"]
        # Nothing happens in these polls: their rooms are filtered out.
        quiet = '{"room": {"rooms": []}, "presence": {"types": []}}'
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            devices = [await stack.enter_async_context(new_device(talk.reader)) for _ in range(10)]
            polls = [
                tasks.create_task(device.call("GET", "/sync", since=since, timeout=40_000, filter=quiet))
                for device in devices
            ]
            async with writing(talk.writers):
                await wait_until(lambda: talk.acknowledged >= 30, seconds_max=30)
                async with asyncio.timeout(15):
                    status = await server.stop()
                    answers = [await poll for poll in polls]
                assert server.mistakes == []
                await server.start()
        assert status == 0
        assert [answer.status for answer in answers] == [200] * len(polls)
        assert all(answer.body["next_batch"] for answer in answers)
        await check_nothing_lost(talk.writers, talk.reader)
