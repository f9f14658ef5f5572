"""Waiting for news: what ends it, what does not, and what a lost wake costs."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import REGISTRY

from storage.bus.memory import MemoryBus
from storage.database import measure_database
from tests.api.server import CONFIG, Site, composed_server, with_changes
from tests.api.sync.api import Device, Sync, event_ids, register, timeline_filter
from tests.waiting import wait_until

LONG = 20_000


class DeafBus(MemoryBus):
    """A bus that loses every wake."""

    async def wake(self, keys: Collection[str], position: int) -> None:
        """Loses it."""


@asynccontextmanager
async def waiting(device: Device, **query: Any) -> AsyncIterator["asyncio.Task[Sync]"]:
    """A sync that waits while the block runs, and is over soon after it."""
    before = _waiters()
    async with asyncio.timeout(LONG / 2000), asyncio.TaskGroup() as group:
        task = group.create_task(device.sync(timeout=LONG, **query))
        await wait_until(lambda: _waiters() > before)
        yield task


def _waiters() -> float:
    """How many requests wait for news in this process."""
    return REGISTRY.get_sample_value("heliograph_hub_waiters") or 0.0


async def test_news_end_the_waiting(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    await bob.caught_up()
    async with waiting(bob) as sync:
        event_id = await alice.send(room_id)
    assert event_ids(sync.result().timeline(room_id)) == [event_id]
    async with waiting(bob) as sync:
        await alice.type(room_id)
    assert sync.result().ephemeral(room_id, "m.typing")
    async with waiting(bob) as sync:
        await alice.read(room_id, event_id)
    assert sync.result().ephemeral(room_id, "m.receipt")
    async with waiting(bob) as sync:
        await bob.put(f"/user/{bob.user_id}/account_data/org.example", {})
    assert sync.result().account_data == {"org.example": {}}
    async with waiting(bob) as sync:
        invited = await alice.create(preset="private_chat", invite=[bob.user_id])
    assert set(sync.result().rooms("invite")) == {invited}
    async with waiting(bob) as sync:
        await alice.act(room_id, "kick", user_id=bob.user_id)
    assert set(sync.result().rooms("leave")) == {room_id}


async def test_presence_ends_the_waiting(alice: Device, bob: Device) -> None:
    await alice.create(bob)
    await bob.caught_up()
    async with waiting(bob) as sync:
        await alice.put(f"/presence/{alice.user_id}/status", {"presence": "online", "status_msg": "here"})
    assert sync.result().presence[alice.user_id]["status_msg"] == "here"


async def test_nothing_new_ends_with_the_time(alice: Device, bob: Device) -> None:
    await alice.create()
    await bob.caught_up()
    before = time.monotonic()
    sync = await bob.sync(timeout=300)
    assert sync.is_empty
    assert 0.3 <= time.monotonic() - before < 5
    assert (await bob.sync()).is_empty


async def test_the_server_says_how_long_a_sync_waits_at_most(database_url: str) -> None:
    config = with_changes(CONFIG, limits={"sync_timeout_ms_max": 200})
    async with composed_server(database_url, config) as site:
        (alice,) = await register(site, "alice")
        await alice.sync()
        async with asyncio.timeout(10):
            assert (await alice.sync(timeout=10**9)).is_empty


async def test_a_room_that_is_entered_meanwhile_is_listened_to(alice: Device, bob: Device) -> None:
    hidden = {"room": {"state": {"types": []}, "timeline": {"types": ["m.room.message"]}, "ephemeral": {"types": []}}}
    room_id = await alice.create()
    query = {"filter": {**hidden, "presence": {"types": []}}}
    await bob.caught_up()
    async with waiting(bob, **query) as sync:
        await bob.act(room_id, "join")
    assert set(sync.result().rooms()) == {room_id}
    async with waiting(bob, **query) as sync:
        event_id = await alice.send(room_id)
    assert event_ids(sync.result().timeline(room_id)) == [event_id]


async def test_a_room_that_the_filter_hides_does_not_end_the_waiting(alice: Device, bob: Device) -> None:
    hidden, shown = await alice.create(bob), await alice.create(bob)
    await bob.caught_up()
    async with waiting(bob, filter={"room": {"not_rooms": [hidden]}}) as sync:
        await alice.send(hidden)
        await alice.type(hidden)
        event_id = await alice.send(shown)
    assert event_ids(sync.result().timeline(shown)) == [event_id]
    assert hidden not in sync.result().rooms()


async def test_membership_is_that_of_each_answer(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    nothing = {"room": {"timeline": {"types": ["m.room.message"]}, "state": {"types": []}}}
    await bob.caught_up()
    async with waiting(bob, filter=nothing) as sync:
        await alice.act(room_id, "kick", user_id=bob.user_id)
    assert set(sync.result().rooms("leave")) == {room_id}
    async with waiting(bob) as sync:
        await alice.send(room_id, "secret")
        await alice.type(room_id)
        await bob.put(f"/user/{bob.user_id}/account_data/org.example", {})
    assert set(sync.result().body) == {"next_batch", "account_data"}


async def test_devices_of_one_user_do_not_keep_each_other_awake(site: Site, alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    devices = [alice, *[Device.of(await site.login("alice")) for _ in range(3)]]
    quiet = [{"set_presence": presence} for presence in ("online", "unavailable", "offline", "online")]

    async def have_settled() -> bool:
        syncs = [await device.sync(**query) for device, query in zip(devices, quiet, strict=True)]
        return all(sync.is_empty for sync in syncs)

    await wait_until(have_settled)
    with measure_database() as usage:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(device.sync(timeout=2500, **query))
                for device, query in zip(devices, quiet, strict=True)
            ]
    assert all(task.result().is_empty for task in tasks)
    assert usage.statements < 40, "nobody reads again and again"
    async with waiting(alice) as sync:
        event_id = await bob.send(room_id)
    assert event_ids(sync.result().timeline(room_id)) == [event_id]


async def test_news_that_are_none_for_a_device_are_looked_at_once(alice: Device, bob: Device) -> None:
    room_id = await alice.create(bob)
    names = timeline_filter(types=["m.room.name"])
    await bob.caught_up()
    with measure_database() as usage:
        async with waiting(bob, filter=names) as sync:
            for _ in range(5):
                await alice.send(room_id)
            await alice.rename(room_id, "Kitchen")
    assert [event["content"] for event in sync.result().timeline(room_id)] == [{"name": "Kitchen"}]
    assert usage.statements < 70, "those of the senders included"


@pytest.mark.seconds_max(90)
async def test_a_lost_wake_costs_about_a_second(database_url: str) -> None:
    async with composed_server(database_url, bus=DeafBus()) as site:
        alice, bob = await register(site, "alice", "bob")
        room_id = await alice.create(bob)
        event_id = await alice.send(room_id)
        await bob.caught_up()
        changes: list[Coroutine[Any, Any, Any]] = [
            alice.send(room_id),
            alice.type(room_id),
            alice.read(room_id, event_id),
            bob.put(f"/user/{bob.user_id}/account_data/org.example", {}),
            bob.put(f"/user/{bob.user_id}/rooms/{room_id}/tags/u.x", {}),
            bob.put("/pushrules/global/content/org.example", {"pattern": "soup", "actions": ["notify"]}),
            alice.create(preset="private_chat", invite=[bob.user_id]),
            alice.act(room_id, "kick", user_id=bob.user_id),
        ]
        for change in changes:
            async with waiting(bob) as sync:
                await change
                before = time.monotonic()
            assert not sync.result().is_empty
            assert time.monotonic() - before < 5
