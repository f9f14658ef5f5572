"""Several workers on one database: whoever is served by one sees what another has written, once and in order."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.durability.writers import Writer, check_follower, check_nothing_lost, following, writing
from tests.processes import HomeserverProcess, RedisProcess, homeserver, redis
from tests.real_client import Client, Follower, new_device, new_user
from tests.waiting import wait_until

CONNECTIONS_MAX = 200
FOLLOWERS = 4
WRITERS = 4


@asynccontextmanager
async def two_workers(database_url: str, folder: Path) -> AsyncIterator[tuple[HomeserverProcess, RedisProcess]]:
    """A server with two workers, and the Redis between them."""
    async with redis(folder / "redis") as bus:
        settings = {"workers": 2, "redis": {"url": bus.url}}
        async with homeserver(folder / "server", database_url, **settings) as server:
            yield server, bus


@asynccontextmanager
async def crowd(server: HomeserverProcess, owner: Client) -> AsyncIterator[tuple[list[Writer], list[Follower]]]:
    """Writers in two rooms, and devices of the owner that follow; each has connections of its own."""
    async with AsyncExitStack() as stack:
        rooms = [await owner.create_room(preset="public_chat") for _ in range(2)]
        writers = []
        for number in range(WRITERS):
            client = await stack.enter_async_context(new_user(server.url, f"writer{number}"))
            for room_id in rooms:
                await client.post(f"/rooms/{quote(room_id)}/join")
            await settle(server, client, 1 + number % 2)
            writers.append(Writer(client, f"writer{number}", rooms))
        followers = [Follower(await stack.enter_async_context(new_device(owner))) for _ in range(FOLLOWERS)]
        for number, follower in enumerate(followers):
            await settle(server, follower.client, 1 + number % 2)
            await follower.step()
        yield writers, followers


async def settle(server: HomeserverProcess, client: Client, worker: int) -> None:
    """Connects anew until the client's connection leads to one of the workers."""
    for attempt in range(CONNECTIONS_MAX):
        request_id = f"{client.device_id}-{attempt}"
        url = f"{server.url}/_matrix/client/versions"
        async with client.http.get(url, headers={"X-Request-Id": request_id}) as answer:
            await answer.read()
        served = [line["worker"] for line in server.log if line.get("request_id") == request_id]
        if served == [worker]:
            return
        async with client.http.get(url, headers={"Connection": "close"}) as answer:
            await answer.read()
    raise AssertionError(f"no connection has led to worker {worker}")


def workers_that(server: HomeserverProcess, operation: str) -> set[int]:
    """The workers that have answered an operation, by the server's log."""
    lines = [line for line in server.log if line.get("event") == "request" and line["operation"] == operation]
    return {line["worker"] for line in lines}


def sent(writers: Sequence[Writer]) -> int:
    """How many messages have been acknowledged."""
    return sum(len(writer.acknowledged) for writer in writers)


async def test_nothing_is_missed_and_nothing_comes_twice(database_url: str, tmp_path: Path) -> None:
    async with two_workers(database_url, tmp_path) as (server, _), new_user(server.url, "owner") as owner:
        async with crowd(server, owner) as (writers, followers):
            async with following(followers, writers), writing(writers):
                await wait_until(lambda: sent(writers) >= 300, seconds_max=40)
            for follower in followers:
                check_follower(follower, writers)
                for room_id in writers[0].rooms:
                    assert follower.event_ids(room_id) == followers[0].event_ids(room_id), "in another order"
            await check_nothing_lost(writers, owner)
            assert workers_that(server, "send_message") == {1, 2}
            assert workers_that(server, "sync") == {1, 2}
            assert server.mistakes == []


@pytest.mark.seconds_max(90)
async def test_redis_goes_away_and_comes_back(database_url: str, tmp_path: Path) -> None:
    async with two_workers(database_url, tmp_path) as (server, bus), new_user(server.url, "owner") as owner:
        async with crowd(server, owner) as (writers, followers):

            async def everybody_hears_more() -> None:
                goal = sent(writers) + 40
                await wait_until(
                    lambda: min(sum(map(len, follower.messages.values())) for follower in followers) >= goal,
                    seconds_max=20,
                )

            async with following(followers, writers), writing(writers):
                await everybody_hears_more()
                await bus.kill()
                # Without wakes each worker looks by itself, every second.
                await everybody_hears_more()
                await bus.start()
                await everybody_hears_more()
            for follower in followers:
                check_follower(follower, writers)
                assert follower.failures == 0
            assert all(not writer.refusals and not writer.disconnections for writer in writers)
            await check_nothing_lost(writers, owner)
            assert server.mistakes == []


@pytest.mark.seconds_max(90)
async def test_a_killed_worker_is_replaced_and_loses_nothing(database_url: str, tmp_path: Path) -> None:
    async with two_workers(database_url, tmp_path) as (server, _), new_user(server.url, "owner") as owner:
        async with crowd(server, owner) as (writers, followers):
            async with following(followers, writers), writing(writers):
                await wait_until(lambda: sent(writers) >= 60, seconds_max=30)
                server.kill_worker(server.workers()[0])
                goal = sent(writers) + 60
                await wait_until(lambda: sent(writers) >= goal, seconds_max=30)
            for follower in followers:
                check_follower(follower, writers)
            await check_nothing_lost(writers, owner)
            await wait_until(lambda: len(server.workers()) == 2)
