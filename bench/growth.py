"""How the cost of a send, a sync and a join grows with a room's members, a user's rooms, and a room's history.

The cost is the processor time of the server and of its PostgreSQL. The growth between two sizes is an exponent: 0 means
that the cost stays the same however large it is, 1 that ten times as much costs ten times as much.
"""

import asyncio
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.client import LAZY, PASSWORD, Client, http_session
from bench.filling import Filling, filling
from bench.server import Cpu, Meter, Place, Server, place, running_server
from homeserver.core.ids import RoomId

OPERATIONS: Final = ("send", "sync", "initial_sync", "join")
SMALL_MEMBERS: Final = 2
WARM_UPS: Final = 8
FLAT_EXPONENT: Final = 0.1
"""What grows slower is called flat: measurements vary by as much."""


@dataclass(frozen=True, slots=True)
class Options:
    """How large it is.

    Attributes:
        members: sizes of rooms.
        rooms: numbers of rooms of a user.
        events: lengths of histories.
        repeats: how often each operation is measured.
    """

    members: Sequence[int] = (100, 1_000, 10_000)
    rooms: Sequence[int] = (10, 100, 1_000)
    events: Sequence[int] = (1_000, 10_000, 100_000)
    repeats: int = 20


@dataclass(frozen=True, slots=True)
class Scene:
    """Where one size is measured.

    Attributes:
        dimension: what is large.
        size: how large.
        room_id: the room that is written to.
        reader: who syncs; with `alice`, who writes, a member of the room.
        others: rooms that the reader joins; if there are none, others join the room.
    """

    dimension: str
    size: int
    room_id: RoomId
    reader: str
    others: Sequence[RoomId] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """What the operations cost in a scene, on average."""

    scene: Scene
    costs: Mapping[str, Cpu]


async def fill(where: Place, options: Options) -> list[Scene]:
    """Makes everything that is measured."""
    scenes: list[Scene] = []
    async with filling(where) as make:
        for username in ("owner", "alice", "bob", *(f"joiner{number}" for number in range(_joins(options)))):
            await make.make_user(username)
        await _fill_members(make, options, scenes)
        await _fill_events(make, options, scenes)
        await _fill_rooms(make, options, scenes)
    return scenes


async def _fill_members(make: Filling, options: Options, scenes: list[Scene]) -> None:
    members = [f"member{number}" for number in range(max(options.members, default=0))]
    await make.make_members(members)
    for size in options.members:
        started = time.perf_counter()
        room_id = await make.make_room("alice", ["bob", *members[: size - SMALL_MEMBERS]])
        scenes.append(Scene("members", size, room_id, "bob"))
        _tell(f"a room of {size} members", started)


async def _fill_events(make: Filling, options: Options, scenes: list[Scene]) -> None:
    for size in options.events:
        started = time.perf_counter()
        room_id = await make.make_room("alice", ["bob"])
        await make.add_messages(room_id, "alice", size)
        scenes.append(Scene("events", size, room_id, "bob"))
        _tell(f"a room of {size} events", started)


async def _fill_rooms(make: Filling, options: Options, scenes: list[Scene]) -> None:
    """Each user is in rooms of its own, so that the largest does not wake the others."""
    for size in options.rooms:
        started = time.perf_counter()
        reader = f"reader{size}"
        await make.make_user(reader)
        room_id = await make.make_room("owner", ["alice", reader])
        await make.make_rooms(size - 1, "owner", [reader])
        others = await make.make_rooms(_joins(options), "owner", [])
        scenes.append(Scene("rooms", size, room_id, reader, others))
        _tell(f"a user with {size} rooms", started)


def _tell(what: str, started: float) -> None:
    print(f"made {what} in {time.perf_counter() - started:.1f} s", file=sys.stderr)


def _joins(options: Options) -> int:
    return max(1, min(5, options.repeats))


async def measure(server: Server, scenes: Sequence[Scene], options: Options) -> list[Measured]:
    """Measures every operation in every scene."""
    async with http_session() as http:
        meter = Meter(server)
        alice = await _logged_in(http, server, "alice")
        joiners = [await _logged_in(http, server, f"joiner{number}") for number in range(_joins(options))]
        await meter.calibrate()
        print(f"the server takes {server.resident_mib():.0f} MiB", file=sys.stderr)
        measured = []
        for scene in scenes:
            reader = await _logged_in(http, server, scene.reader)
            costs = await _measure_scene(meter, scene, alice=alice, reader=reader, joiners=joiners, options=options)
            measured.append(Measured(scene, costs))
            now = f"the server takes {server.resident_mib():.0f} MiB"
            print(f"measured {scene.dimension} {scene.size}; {now}", file=sys.stderr)
        return measured


async def _logged_in(http: Any, server: Server, username: str) -> Client:
    client = Client(http, server.url)
    await client.log_in(username, PASSWORD)
    return client


async def _measure_scene(
    meter: Meter, scene: Scene, *, alice: Client, reader: Client, joiners: Sequence[Client], options: Options
) -> Mapping[str, Cpu]:
    costs = {operation: Cpu() for operation in OPERATIONS}
    await reader.sync(filter=LAZY)
    # What first requests read, and plan in the database, is in memory afterwards.
    for _ in range(min(WARM_UPS, options.repeats)):
        await alice.send(scene.room_id)
        await reader.sync(filter=LAZY)
    for _ in range(options.repeats):
        async with meter.measure() as send:
            event_id = await alice.send(scene.room_id)
        async with meter.measure() as sync:
            found = await reader.sync(filter=LAZY)
        if event_id not in found:
            raise RuntimeError("A sync did not bring the event that was sent before it")
        costs["send"] += send[0] * (1 / options.repeats)
        costs["sync"] += sync[0] * (1 / options.repeats)
    first_syncs = max(1, options.repeats // 4)
    for _ in range(first_syncs):
        reader.since = None
        async with meter.measure() as initial:
            await reader.sync(filter=LAZY)
        costs["initial_sync"] += initial[0] * (1 / first_syncs)
    joins = [(reader, room_id) for room_id in scene.others] or [(joiner, scene.room_id) for joiner in joiners]
    for client, room_id in joins:
        async with meter.measure() as join:
            await client.join(room_id)
        costs["join"] += join[0] * (1 / len(joins))
    return costs


def exponent(smaller: tuple[int, float], larger: tuple[int, float]) -> float:
    """The growth between two sizes, each with its cost."""
    least = 1e-9
    return math.log(max(larger[1], least) / max(smaller[1], least)) / math.log(larger[0] / smaller[0])


def report(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """The costs in milliseconds and the growth from the size before, one entry for each size and operation."""
    entries: list[dict[str, Any]] = []
    for dimension in dict.fromkeys(one.scene.dimension for one in measured):
        sizes = sorted((one for one in measured if one.scene.dimension == dimension), key=lambda one: one.scene.size)
        for operation in OPERATIONS:
            before: tuple[int, float] | None = None
            for one in sizes:
                cost = one.costs[operation]
                here = (one.scene.size, cost.total * 1000)
                entries.append(
                    {
                        "dimension": dimension,
                        "size": one.scene.size,
                        "operation": operation,
                        "server_ms": round(cost.server * 1000, 3),
                        "database_ms": round(cost.database * 1000, 3),
                        "total_ms": round(cost.total * 1000, 3),
                        "exponent": None if before is None else round(exponent(before, here), 2),
                    }
                )
                before = here
    return entries


def table(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same for people."""
    lines = [f"{'':<9}{'size':>8}  {'operation':<13}{'server':>10}{'database':>10}{'total':>10}  growth"]
    for entry in entries:
        growth = "" if entry["exponent"] is None else f"{entry['exponent']:+.2f}"
        flag = "  not flat" if (entry["exponent"] or 0) > FLAT_EXPONENT else ""
        lines.append(
            f"{entry['dimension']:<9}{entry['size']:>8}  {entry['operation']:<13}{entry['server_ms']:>7.2f} ms"
            f"{entry['database_ms']:>7.2f} ms{entry['total_ms']:>7.2f} ms  {growth:>6}{flag}"
        )
    return lines


def run(options: Options, *, as_json: bool) -> None:
    """Fills, measures and prints."""
    with place() as where:
        scenes = asyncio.run(fill(where, options))
        entries = report(asyncio.run(_measure_all(where, scenes, options)))
    print(json.dumps(entries, indent=2) if as_json else "\n".join(table(entries)))


async def _measure_all(where: Place, scenes: Sequence[Scene], options: Options) -> list[Measured]:
    async with running_server(where) as server:
        return await measure(server, scenes, options)
