"""All servers of a simulated room agree at rest, in every room version.

A seed that fails names itself. `ROOM_SIMULATION_SEEDS=1000` tries more seeds than usual, and
`ROOM_SIMULATION_FIRST_SEED=4711` begins with another one.
"""

import os
from functools import cache

import pytest

from homeserver.core.hashing import event_id_of
from homeserver.core.redaction import redact
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from tests.simulation.room import Simulation

FIRST_SEED = int(os.environ.get("ROOM_SIMULATION_FIRST_SEED", "0"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("ROOM_SIMULATION_SEEDS", "6")))
STEPS = 200

all_versions = pytest.mark.parametrize("version", ROOM_VERSIONS.values(), ids=lambda version: version.identifier)


@cache
def simulated(version: RoomVersion, seed: int) -> Simulation:
    """A simulated room at rest; no test changes it."""
    simulation = Simulation(version, seed)
    simulation.run(STEPS)
    return simulation


def check_agreement(simulation: Simulation) -> None:
    """Compares what the servers know, event by event."""
    first, *others = simulation.servers
    everything = first.events.keys()
    for server in others:
        assert not server.waiting
        assert server.events.keys() == everything
        assert server.rejected == first.rejected
        for event_id in everything:
            assert server.states_before[event_id] == first.states_before[event_id], event_id
        assert server.redacted == first.redacted
    # The state after all ends of the room, whichever of them a server has soft-failed.
    followed = {previous for event_id in everything for previous in first.events[event_id].prev_events}
    ends = sorted(everything - followed - first.rejected)
    assert len({tuple(sorted(server.state_after(*ends).items())) for server in simulation.servers}) == 1


@all_versions
@pytest.mark.parametrize("seed", SEEDS)
def test_all_servers_agree_at_rest(version: RoomVersion, seed: int) -> None:
    check_agreement(simulated(version, seed))


@all_versions
def test_the_simulation_gets_into_interesting_places(version: RoomVersion) -> None:
    """Otherwise agreement would mean little."""
    rejected = soft_failed = merged = redacted = 0
    for seed in range(3):
        for server in simulated(version, seed).servers:
            rejected += len(server.rejected)
            soft_failed += len(server.soft_failed)
            merged += sum(len(pdu.prev_events) > 1 for pdu in server.events.values())
            redacted += len(server.redacted)
    assert min(rejected, soft_failed, merged, redacted) > 5


@all_versions
def test_the_same_seed_makes_the_same_room(version: RoomVersion) -> None:
    rooms = [Simulation(version, 1) for _ in range(2)]
    for room in rooms:
        room.run(40)
    assert rooms[0].servers[0].events == rooms[1].servers[0].events


@all_versions
def test_a_redacted_event_keeps_its_id(version: RoomVersion) -> None:
    redacted = []
    for seed in range(3):
        server = simulated(version, seed).servers[0]
        redacted += [server.events[event_id] for event_id in server.redacted]
    assert redacted
    for pdu in redacted:
        assert event_id_of(redact(pdu.json, version), version) == pdu.event_id
