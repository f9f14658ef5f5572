"""Where servers are found, in the six steps of the specification."""

import asyncio
import itertools
from collections import Counter

import pytest

from federation.outbound.discovery import ServerDiscovery
from federation.outbound.srv import SrvAnswer, SrvRecord, in_order
from federation.outbound.target import Target
from federation.outbound.well_known import WellKnown
from homeserver.core.errors import RemoteUnavailable
from homeserver.core.ids import ServerName
from homeserver.services.single_flight import SingleFlight
from tests.fast_clock import FastClock
from tests.federation.transport.ways import FakeSrv, FakeWellKnown

DAY = 86_400.0


def says(delegated: str | None, seconds: float = DAY) -> WellKnown:
    return WellKnown(None if delegated is None else ServerName.parse(delegated), seconds)


def record(host: str, port: int = 443, *, priority: int = 1, weight: int = 1) -> SrvRecord:
    return SrvRecord(priority, weight, port, host)


class World:
    """A discovery, and what it is told."""

    def __init__(self, clock: FastClock) -> None:
        self.well_known, self.srv, self.clock = FakeWellKnown(), FakeSrv(), clock
        self.discovery = ServerDiscovery(well_known=self.well_known, srv=self.srv, clock=clock)

    async def find(self, name: str) -> list[Target]:
        return list(await self.discovery.targets(ServerName.parse(name)))


@pytest.fixture
def world() -> World:
    return World(FastClock(speed=1.0))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1.2.3.4", Target("1.2.3.4", 8448, "1.2.3.4", None)),
        ("1.2.3.4:99", Target("1.2.3.4", 99, "1.2.3.4:99", None)),
        ("[2001:db8::1]", Target("[2001:db8::1]", 8448, "[2001:db8::1]", None)),
        ("[2001:db8::1]:99", Target("[2001:db8::1]", 99, "[2001:db8::1]:99", None)),
        ("a.example:99", Target("a.example", 99, "a.example:99", "a.example")),
    ],
)
async def test_steps_1_and_2_need_nobody(world: World, name: str, expected: Target) -> None:
    assert await world.find(name) == [expected]
    assert not world.well_known.asked
    assert not world.srv.asked


@pytest.mark.parametrize(
    ("delegated", "expected"),
    [
        ("1.2.3.4", Target("1.2.3.4", 8448, "1.2.3.4", None)),
        ("1.2.3.4:99", Target("1.2.3.4", 99, "1.2.3.4:99", None)),
        ("[::1]:99", Target("[::1]", 99, "[::1]:99", None)),
        ("b.example:99", Target("b.example", 99, "b.example:99", "b.example")),
    ],
)
async def test_steps_31_and_32_take_what_is_delegated(world: World, delegated: str, expected: Target) -> None:
    world.well_known.said["a.example"] = says(delegated)
    assert await world.find("a.example") == [expected]
    assert world.well_known.asked == ["a.example"]
    assert not world.srv.asked


@pytest.mark.parametrize("name", ["a.example", "b.example"])
async def test_records_of_both_services(world: World, name: str) -> None:
    """Steps 3.3 to 3.5 for a delegated name, 4 to 6 without delegation: the same, for the name that was reached."""
    world.well_known.said["a.example"] = says("b.example") if name == "b.example" else says(None)
    assert await world.find("a.example") == [Target(name, 8448, name, name)]
    assert world.srv.asked == [f"_matrix-fed._tcp.{name}", f"_matrix._tcp.{name}"]

    other = World(world.clock)
    other.well_known.said, other.srv.found = world.well_known.said, {f"_matrix._tcp.{name}": one("old.example")}
    assert await other.find("a.example") == [Target("old.example", 443, name, name)]

    newer = World(world.clock)
    newer.well_known.said = world.well_known.said
    newer.srv.found = other.srv.found | {f"_matrix-fed._tcp.{name}": one("new.example")}
    assert await newer.find("a.example") == [Target("new.example", 443, name, name)]
    assert newer.srv.asked == [f"_matrix-fed._tcp.{name}"]


def one(host: str, ttl_seconds: float = 60) -> SrvAnswer:
    return SrvAnswer([record(host)], ttl_seconds)


async def test_a_delegated_name_is_not_delegated_further(world: World) -> None:
    world.well_known.said = {"a.example": says("b.example"), "b.example": says("c.example")}
    assert await world.find("a.example") == [Target("b.example", 8448, "b.example", "b.example")]
    assert world.well_known.asked == ["a.example"]


async def test_a_domain_that_has_no_homeserver(world: World) -> None:
    """RFC 2782: the target `.` says that the service is not there."""
    world.srv.found["_matrix-fed._tcp.a.example"] = one(".")
    with pytest.raises(RemoteUnavailable):
        await world.find("a.example")


async def test_without_a_name_service_the_host_itself_is_tried(world: World) -> None:
    world.srv.found = {"_matrix-fed._tcp.a.example": None, "_matrix._tcp.a.example": None}
    assert await world.find("a.example") == [Target("a.example", 8448, "a.example", "a.example")]


def test_records_are_in_order() -> None:
    last, heavy, light = record("last", priority=2, weight=9), record("heavy", weight=3), record("light", weight=1)
    orders = [in_order([last, light, heavy]) for _ in range(400)]
    assert all(order[2] is last for order in orders)
    first = Counter(order[0].host for order in orders)
    assert 240 < first["heavy"] < 360
    assert in_order([]) == []


async def test_answers_are_remembered_as_long_as_they_may_be(world: World) -> None:
    world.well_known.said["a.example"] = says("b.example", 100)
    world.srv.found["_matrix-fed._tcp.b.example"] = one("s.example", 50)
    for _ in range(3):
        await world.find("a.example")
    assert (len(world.well_known.asked), len(world.srv.asked)) == (1, 1)
    world.clock.advance(51)
    await world.find("a.example")
    assert (len(world.well_known.asked), len(world.srv.asked)) == (1, 2)
    world.clock.advance(49.5)
    await world.find("a.example")
    assert (len(world.well_known.asked), len(world.srv.asked)) == (2, 2)


async def test_a_domain_that_cannot_be_asked_is_asked_less_and_less(world: World) -> None:
    times: list[int] = []
    for minute in range(400):
        await world.find("a.example")
        if len(world.well_known.asked) > len(times):
            times.append(minute)
        world.clock.advance(60)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 1
    assert pauses[-1] == 60


async def test_what_a_domain_said_holds_for_a_while_after_it_has_gone(world: World) -> None:
    world.well_known.said["a.example"] = says("b.example:1", 3600)
    delegated = await world.find("a.example")
    world.well_known.said["a.example"] = None
    world.clock.advance(3601)
    assert await world.find("a.example") == delegated
    world.clock.advance(2 * DAY)
    assert await world.find("a.example") == [Target("a.example", 8448, "a.example", "a.example")]
    world.well_known.said["a.example"] = says("c.example:1")
    world.clock.advance(3601)
    assert await world.find("a.example") == [Target("c.example", 1, "c.example:1", "c.example")]


async def test_those_who_ask_at_once_share_one_answer(world: World) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(world.find("a.example"))
    assert len(world.well_known.asked) == 1


async def test_if_the_first_gives_up_the_next_one_asks() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    begun: list[asyncio.Event] = []

    async def work() -> int:
        begun.append(asyncio.Event())
        await begun[-1].wait()
        return len(begun)

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(flights.run("key", work))
        others = [tasks.create_task(flights.run("key", work)) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        while len(begun) < 2:
            await asyncio.sleep(0)
        begun[1].set()
    assert [other.result() for other in others] == [2, 2, 2]


async def test_all_share_a_failure() -> None:
    flights: SingleFlight[str, int] = SingleFlight()

    async def work() -> int:
        await asyncio.sleep(0)
        raise ValueError("no")

    outcomes = await asyncio.gather(*(flights.run("key", work) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError] * 3
