"""Clients that follow their syncs while much happens: in the end all of them know what the server knows."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from storage.bus.memory import MemoryBus
from tests.api.server import Site, composed_server
from tests.api.sync.api import Device, lazy_filter, register, timeline_filter
from tests.api.sync.follower import Follower

NAMES = ("alice", "bob", "carol", "dave")
QUERIES: Sequence[dict[str, Any]] = (
    {},
    {"filter": timeline_filter(limit=2)},
    {"filter": timeline_filter(limit=1), "use_state_after": True},
    {"filter": timeline_filter(types=["m.room.message"], limit=3), "use_state_after": True},
    {"filter": lazy_filter(limit=3)},
    {"filter": lazy_filter(limit=2), "use_state_after": True},
)


class Actor:
    """A user who does this and that, allowed or not."""

    def __init__(self, device: Device, others: Sequence[str], rooms: Sequence[str], seed: int) -> None:
        self.device = device
        self.others = others
        self.rooms = rooms
        self.random = random.Random(f"{device.user_id} {seed}")

    async def act(self) -> None:
        """Does one thing."""
        me, room_id, number = self.device.user_id, self.random.choice(self.rooms), self.random.randrange(10**6)
        other = {"user_id": self.random.choice(self.others)}
        room, own = f"/rooms/{room_id}", f"/user/{me}/rooms/{room_id}"
        message = {"msgtype": "m.text", "body": f"{number}"}
        member = {"membership": "join", "displayname": f"{number}"}
        requests: list[tuple[int, str, str, Any]] = [
            (12, "PUT", f"{room}/send/m.room.message/{number}", message),
            (3, "PUT", f"{room}/state/m.room.name/", {"name": f"{number}"}),
            (2, "PUT", f"{room}/state/m.room.topic/", {"topic": f"{number}"}),
            (2, "PUT", f"{room}/state/m.room.member/{me}", member),
            (4, "POST", f"{room}/join", {}),
            (2, "POST", f"{room}/leave", {}),
            (2, "POST", f"{room}/invite", other),
            (1, "POST", f"{room}/kick", other),
            (1, "POST", f"{room}/ban", other),
            (1, "POST", f"{room}/unban", other),
            (2, "PUT", f"{room}/typing/{me}", {"typing": number % 2 == 0, "timeout": 60_000}),
            (2, "PUT", f"{own}/account_data/org.example", {"n": number}),
            (1, "PUT", f"/user/{me}/account_data/org.example", {"n": number}),
        ]
        weights = [weight for weight, *_ in requests]
        _, method, path, body = self.random.choices(requests, weights)[0]
        reply = await self.device.call(method, path, body)
        assert reply.status in (200, 400, 403, 404), reply.body
        if path.endswith(f"send/m.room.message/{number}") and reply.status == 200 and number % 2:
            await self.device.call("POST", f"{room}/receipt/m.read/{reply.json['event_id']}", {})


async def _check(follower: Follower) -> None:
    """What the client knows is what a client learns that begins now, and what the server says when it is asked."""
    device = follower.device
    assert follower.strays == []
    now = await device.peek(since=None, filter=None, use_state_after=True)
    assert follower.joined.keys() == now.rooms().keys()
    assert follower.offered == now.rooms("invite").keys()
    assert follower.account_data == now.account_data
    for room_id, room in follower.joined.items():
        state = {
            (event["type"], event["state_key"]): event["event_id"]
            for event in await device.get(f"/rooms/{room_id}/state")
        }
        told = now.room(room_id)
        is_lazy = "lazy_load_members" in str(device.sync_query)
        if not is_lazy:
            assert room.state == state
        assert room.state.items() <= state.items()
        assert {kind for kind, _ in state} == {kind for kind, _ in room.state}
        assert room.counts == told["unread_notifications"]
        assert room.summary.items() >= told["summary"].items()
        assert room.account_data == {event["type"]: event["content"] for event in told["account_data"]["events"]}
        assert room.typing == next(iter(now.ephemeral(room_id, "m.typing")), {"user_ids": []})["user_ids"]
        receipts = {
            (user_id, kind): event_id
            for content in now.ephemeral(room_id, "m.receipt")
            for event_id, kinds in content.items()
            for kind, users in kinds.items()
            for user_id in users
        }
        assert room.receipts == receipts


async def _run(sites: Sequence[Site], *, seed: int, actions: int) -> None:
    people = await register(sites[0], *NAMES)
    rooms = [await people[0].create(preset="public_chat", power_level_content_override=_POWERFUL) for _ in range(3)]
    followers = []
    for person in people[:2]:
        for number, query in enumerate(QUERIES):
            device = Device.of(await sites[0].login(person.localpart), set_presence="offline", **query)
            device.server = sites[number % len(sites)]
            followers.append(Follower(device))
    for number, person in enumerate(people):
        person.server = sites[number % len(sites)]
    over = asyncio.Event()

    async def follow(follower: Follower) -> None:
        while not over.is_set():
            await follower.follow(timeout_ms=500)
        while not (await follower.follow()).is_empty:
            pass

    async def act(actor: Actor) -> None:
        for _ in range(actions):
            await actor.act()

    async with asyncio.TaskGroup() as group:
        for follower in followers:
            group.create_task(follow(follower))
        async with asyncio.TaskGroup() as acting:
            users = [person.user_id for person in people]
            for person in people:
                acting.create_task(act(Actor(person, users, rooms, seed)))
        over.set()
    for follower in followers:
        await _check(follower)
    assert sum(follower.gaps for follower in followers) > 0


_POWERFUL = {"users_default": 50, "state_default": 50, "events_default": 0}


@pytest.mark.seconds_max(120)
@pytest.mark.parametrize("seed", [1, 2])
async def test_on_one_worker(site: Site, seed: int) -> None:
    await _run([site], seed=seed, actions=60)


@pytest.mark.seconds_max(180)
async def test_on_two_workers_with_one_bus(database_url: str) -> None:
    bus = MemoryBus()
    async with composed_server(database_url, bus=bus) as one, composed_server(database_url, bus=bus) as two:
        await _run([one, two], seed=3, actions=40)


@pytest.mark.seconds_max(180)
async def test_on_two_workers_whose_wakes_are_lost(database_url: str) -> None:
    async with composed_server(database_url) as one, composed_server(database_url) as two:
        await _run([one, two], seed=4, actions=40)
