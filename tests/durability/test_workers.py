"""Several workers on one database: whoever is served by one sees what another has written, once and in order."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from tests.durability.writers import Writer, check_follower, check_nothing_lost, following, writing
from tests.processes import HomeserverProcess, RedisProcess, homeserver, redis
from tests.real_client import Client, Follower, anonymous_client, new_device, new_user
from tests.waiting import wait_until

CONNECTIONS_MAX = 200
# A worker that dies is noticed by its supervisor; of a machine that is gone the leases must expire.
TAKEOVER_SECONDS_MAX = 10.0
EXPIRY_SECONDS_MAX = 15.0
LASTING_LEASES = """
    SELECT name, holder FROM leases WHERE expires_at >= clock_timestamp()
    AND (starts_with(name, 'federation_share:') OR name IN (SELECT name FROM follower_positions))
"""
FOLLOWERS = 4
WRITERS = 4


@asynccontextmanager
async def two_workers(
    database_url: str, folder: Path, *, workers: int = 2
) -> AsyncIterator[tuple[HomeserverProcess, RedisProcess]]:
    """A server with two workers, or so many, and the Redis between them."""
    async with redis(folder / "redis") as bus:
        settings = {"workers": workers, "redis": {"url": bus.url}}
        async with homeserver(folder / "server", database_url, **settings) as server:
            yield server, bus


@asynccontextmanager
async def crowd(
    server: HomeserverProcess, owner: Client, *, workers: int = 2
) -> AsyncIterator[tuple[list[Writer], list[Follower]]]:
    """Writers in two rooms, and devices of the owner that follow; they are spread over the workers."""
    async with AsyncExitStack() as stack:
        rooms = [await owner.create_room(preset="public_chat") for _ in range(2)]
        writers = []
        for number in range(WRITERS):
            client = await stack.enter_async_context(new_user(server.url, f"writer{number}"))
            for room_id in rooms:
                await client.post(f"/rooms/{quote(room_id)}/join")
            await settle(server, client, 1 + number % workers)
            writers.append(Writer(client, f"writer{number}", rooms))
        followers = [Follower(await stack.enter_async_context(new_device(owner))) for _ in range(FOLLOWERS)]
        for number, follower in enumerate(followers):
            await settle(server, follower.client, 1 + number % workers)
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


@pytest.mark.seconds_max(90)
@pytest.mark.parametrize("workers", [2, 4])
async def test_nothing_is_missed_and_nothing_comes_twice(database_url: str, tmp_path: Path, workers: int) -> None:
    async with AsyncExitStack() as stack:
        server, _ = await stack.enter_async_context(two_workers(database_url, tmp_path, workers=workers))
        owner = await stack.enter_async_context(new_user(server.url, "owner"))
        async with crowd(server, owner, workers=workers) as (writers, followers):
            async with following(followers, writers), writing(writers):
                await wait_until(lambda: sent(writers) >= 300, seconds_max=40)
            for follower in followers:
                check_follower(follower, writers)
                for room_id in writers[0].rooms:
                    assert follower.event_ids(room_id) == followers[0].event_ids(room_id), "in another order"
            await check_nothing_lost(writers, owner)
            everyone = set(range(1, workers + 1))
            assert workers_that(server, "send_message") == workers_that(server, "sync") == everyone
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


async def test_a_message_sent_to_two_workers_is_there_once(database_url: str, tmp_path: Path) -> None:
    """A client that has not seen the answer sends again, and comes to another worker."""
    async with two_workers(database_url, tmp_path) as (server, _), AsyncExitStack() as stack:
        owner = await stack.enter_async_context(new_user(server.url, "owner"))
        again = await stack.enter_async_context(anonymous_client(server.url))
        again.user_id, again.device_id, again.token = owner.user_id, owner.device_id, owner.token
        for number, client in enumerate((owner, again), 1):
            await settle(server, client, number)
        room_id = await owner.create_room()
        for number in range(30):
            async with asyncio.TaskGroup() as tasks:
                sends = [
                    tasks.create_task(client.send(room_id, f"text {number}", txn_id=f"m{number}"))
                    for client in (owner, again)
                ]
            assert sends[0].result() == sends[1].result()
            assert await again.send(room_id, f"text {number}", txn_id=f"m{number}") == sends[0].result()
        bodies = [event["content"]["body"] for event in await owner.history(room_id) if "body" in event["content"]]
        assert bodies == [f"text {number}" for number in range(30)]


async def test_a_session_that_one_worker_ends_is_served_by_none(database_url: str, tmp_path: Path) -> None:
    async with two_workers(database_url, tmp_path) as (server, _), AsyncExitStack() as stack:
        owner = await stack.enter_async_context(new_user(server.url, "owner"))
        for number in range(5):
            device = await stack.enter_async_context(new_device(owner))
            await settle(server, device, 1)
            other = await stack.enter_async_context(anonymous_client(server.url))
            other.device_id, other.token = f"other{number}", device.token
            await settle(server, other, 2)
            assert (await other.call("GET", "/account/whoami")).status == 200
            await device.post("/logout")
            assert (await other.call("GET", "/account/whoami")).status == 401


@pytest.mark.seconds_max(90)
async def test_what_a_killed_worker_held_is_taken_over_in_seconds(database_url: str, tmp_path: Path) -> None:
    async with two_workers(database_url, tmp_path) as (server, _), leases(database_url) as held:

        async def both_hold_some() -> bool:
            return len(set((await held()).values())) == 2

        await wait_until(both_hold_some)
        before = await held()
        server.kill_worker(server.workers()[0])
        started = time.monotonic()

        async def are_taken_over() -> bool:
            now = await held()
            return before.keys() <= now.keys() and not set(before.values()) <= set(now.values())

        await wait_until(are_taken_over, seconds_max=30)
        assert time.monotonic() - started < TAKEOVER_SECONDS_MAX


@asynccontextmanager
async def leases(database_url: str) -> AsyncIterator[Callable[[], Awaitable[dict[str, str]]]]:
    """What tells which leases are held by which process: those that are held for as long as somebody can."""
    connection = await asyncpg.connect(database_url)

    async def held() -> dict[str, str]:
        rows = await connection.fetch(LASTING_LEASES)
        return {row["name"]: row["holder"].partition(":")[0] for row in rows}

    try:
        yield held
    finally:
        await connection.close()


@pytest.mark.seconds_max(120)
async def test_two_machines_share_one_database(database_url: str, tmp_path: Path) -> None:
    """Two servers that know of each other only by PostgreSQL and Redis; one is lost with all its workers."""
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(redis(tmp_path / "redis"))
        settings = {"redis": {"url": bus.url}}
        one = await stack.enter_async_context(homeserver(tmp_path / "one", database_url, workers=2, **settings))
        shutil.copytree(tmp_path / "one" / "data", tmp_path / "two" / "data")
        two = await stack.enter_async_context(homeserver(tmp_path / "two", database_url, **settings))
        owner = await stack.enter_async_context(new_user(two.url, "owner"))
        writers, followers = [], []
        rooms = [await owner.create_room(preset="public_chat") for _ in range(2)]
        for number, server in enumerate((one, two)):
            client = await stack.enter_async_context(new_user(server.url, f"writer{number}"))
            for room_id in rooms:
                await client.post(f"/rooms/{quote(room_id)}/join")
            writers.append(Writer(client, f"writer{number}", rooms, pause_seconds=0.03))
            followers.append(Follower(await stack.enter_async_context(new_device(owner))))
        followers[0].client.url = one.url
        for follower in followers:
            await follower.step()
        held = await stack.enter_async_context(leases(database_url))
        async with following(followers, writers), writing(writers):
            await wait_until(lambda: min(len(writer.acknowledged) for writer in writers) >= 40, seconds_max=40)
        for follower in followers:
            check_follower(follower, writers)
        assert one.mistakes == two.mistakes == []
        before = (await held()).keys()
        await one.kill()
        started = time.monotonic()
        for writer in writers:
            writer.client.url = two.url
        async with writing(writers):
            goal = sent(writers) + 40
            await wait_until(lambda: sent(writers) >= goal, seconds_max=20)

            async def all_are_held_by_one_process() -> bool:
                now = await held()
                return before <= now.keys() and len(set(now.values())) == 1

            await wait_until(all_are_held_by_one_process, seconds_max=30)
        assert time.monotonic() - started < EXPIRY_SECONDS_MAX
        await check_nothing_lost(writers, owner)
