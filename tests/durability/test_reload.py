"""SIGHUP: the server takes up its configuration anew, and nobody who uses it meanwhile is refused or loses anything."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from homeserver.web.websocket import WEBSOCKET_PATH
from tests.durability.writers import Writer, check_follower, check_nothing_lost, following, writing
from tests.processes import HomeserverProcess, homeserver, redis
from tests.real_client import Client, Follower, new_device, new_user
from tests.waiting import wait_until

WRITERS = 4
# Nothing happens in such a poll: its rooms are filtered out.
QUIET = '{"room": {"rooms": []}, "presence": {"types": []}}'


@dataclass
class Stranger:
    """Connects anew for each request, as clients behind a simple proxy do."""

    url: str
    answered: int = 0
    failures: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Asks until it is cancelled."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
            while True:
                try:
                    async with http.post(f"{self.url}/_matrix/client/v3/login", json={}) as answer:
                        await answer.read()
                        if answer.status != 400:
                            self.failures.append(str(answer.status))
                except (aiohttp.ClientError, ConnectionError) as error:
                    self.failures.append(repr(error))
                self.answered += 1


@asynccontextmanager
async def crowd(server: HomeserverProcess, owner: Client) -> AsyncIterator[tuple[list[Writer], list[Follower]]]:
    """Writers in a room, and devices of the owner that follow it."""
    async with AsyncExitStack() as stack:
        rooms = [await owner.create_room(preset="public_chat")]
        writers = []
        for number in range(WRITERS):
            client = await stack.enter_async_context(new_user(server.url, f"writer{number}"))
            await client.post(f"/rooms/{quote(rooms[0])}/join")
            writers.append(Writer(client, f"writer{number}", rooms, pause_seconds=0.05))
        followers = [Follower(await stack.enter_async_context(new_device(owner))) for _ in range(2)]
        for follower in followers:
            await follower.step()
        yield writers, followers


@asynccontextmanager
async def asking(strangers: Sequence[Stranger]) -> AsyncIterator[None]:
    """All strangers ask while the block runs."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(stranger.run()) for stranger in strangers]
        yield
        for task in running:
            task.cancel()


def sent(writers: Sequence[Writer]) -> int:
    """How many messages have been acknowledged."""
    return sum(len(writer.acknowledged) for writer in writers)


async def close_code(server: HomeserverProcess, client: Client) -> int | None:
    """Opens a WebSocket, and waits until it is closed: with which code."""
    headers = {"Authorization": f"Bearer {client.token}"}
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(server.url + WEBSOCKET_PATH, headers=headers) as socket,
    ):
        while not socket.closed:
            await socket.receive()
        return socket.close_code


@pytest.mark.seconds_max(180)
async def test_workers_are_replaced_and_no_request_is_lost(database_url: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(redis(tmp_path / "redis"))
        settings = {"workers": 2, "redis": {"url": bus.url}}
        server = await stack.enter_async_context(homeserver(tmp_path / "server", database_url, **settings))
        owner = await stack.enter_async_context(new_user(server.url, "owner"))
        quiet = await stack.enter_async_context(new_device(owner))
        writers, followers = await stack.enter_async_context(crowd(server, owner))
        since = (await quiet.sync())["next_batch"]
        before, strangers = set(server.workers()), [Stranger(server.url) for _ in range(2)]
        async with asyncio.TaskGroup() as tasks, following(followers, writers), writing(writers), asking(strangers):
            await wait_until(lambda: sent(writers) >= 40, seconds_max=30)
            poll = tasks.create_task(quiet.call("GET", "/sync", since=since, timeout=60_000, filter=QUIET))
            closed = tasks.create_task(close_code(server, quiet))
            server.configure(registration={"enabled": False})
            server.hang_up()
            # Whoever waits for news is answered early, by the worker that retires.
            assert (await poll).status == 200
            assert await closed == aiohttp.WSCloseCode.GOING_AWAY
            await wait_until(lambda: "reloaded" in events(server), seconds_max=90)
            goal = sent(writers) + 40
            await wait_until(lambda: sent(writers) >= goal, seconds_max=30)
        assert not before & set(server.workers())
        assert len(server.workers()) == 2
        assert all(not writer.refusals and not writer.disconnections for writer in writers)
        assert all(follower.failures == 0 for follower in followers)
        assert [stranger.failures for stranger in strangers] == [[], []]
        assert min(stranger.answered for stranger in strangers) > 20
        for follower in followers:
            check_follower(follower, writers)
        await check_nothing_lost(writers, owner)
        refused = await owner.call("POST", "/register", {"username": "late", "password": "a long password"})
        assert refused.status == 403, "the new settings are in force"
        assert server.mistakes == []


@pytest.mark.seconds_max(90)
async def test_a_configuration_with_mistakes_changes_nothing(database_url: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(redis(tmp_path / "redis"))
        settings = {"workers": 2, "redis": {"url": bus.url}}
        server = await stack.enter_async_context(homeserver(tmp_path / "server", database_url, **settings))
        before = server.workers()
        wrong: list[dict[str, Any]] = [{"workers": "many"}, {"server_name": "another"}, {"data_dir": "elsewhere"}]
        for count, mistake in enumerate(wrong, 1):
            server.configure(**mistake)
            server.hang_up()
            await wait_until(lambda count=count: len(server.mistakes) == count)  # type: ignore[misc]
            assert next(iter(mistake)) in server.mistakes[-1]["mistakes"][0]
        (server.folder / "config.yaml").unlink()
        server.hang_up()
        await wait_until(lambda: len(server.mistakes) == len(wrong) + 1)
        assert server.workers() == before
        # A worker that dies now is started again with what was right.
        server.kill_worker(before[0])
        await wait_until(lambda: events(server).count("listening") == 3, seconds_max=40)
        assert len(server.workers()) == 2
        await wait_until(server.is_healthy)


@pytest.mark.seconds_max(120)
async def test_a_single_process_starts_anew_while_its_callers_wait(database_url: str, tmp_path: Path) -> None:
    async with homeserver(tmp_path / "server", database_url) as server, new_user(server.url, "owner") as owner:
        async with crowd(server, owner) as (writers, followers):
            process, strangers = server.process, [Stranger(server.url) for _ in range(2)]
            async with following(followers, writers), writing(writers), asking(strangers):
                await wait_until(lambda: sent(writers) >= 40, seconds_max=30)
                server.configure(workers="many")
                server.hang_up()
                await wait_until(lambda: len(server.mistakes) == 1)
                server.configure(registration={"enabled": False})
                server.hang_up()
                await wait_until(lambda: events(server).count("listening") == 2, seconds_max=40)
                goal = sent(writers) + 40
                await wait_until(lambda: sent(writers) >= goal, seconds_max=30)
            assert server.process is process, "it has become another process"
            assert all(not writer.refusals and not writer.disconnections for writer in writers)
            assert [stranger.failures for stranger in strangers] == [[], []]
            for follower in followers:
                check_follower(follower, writers)
            await check_nothing_lost(writers, owner)
            refused = await owner.call("POST", "/register", {"username": "late", "password": "a long password"})
            assert refused.status == 403, "the new settings are in force"
            assert len(server.mistakes) == 1


def events(server: HomeserverProcess) -> list[str]:
    """What the server has logged, by name."""
    return [line["event"] for line in server.log if "event" in line]
