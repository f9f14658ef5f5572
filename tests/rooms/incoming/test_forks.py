"""Rooms that fork: many branches in one transaction, what they cost, and what those who listen are told."""

import pytest
from prometheus_client import REGISTRY

from homeserver.core.event_auth.auth_events import POWER_LEVELS, member_slot
from homeserver.core.pdu import Pdu
from tests.rooms.consistency import check_consistent
from tests.rooms.incoming.homeserver import Homeserver, room_with_another_server
from tests.rooms.incoming.remote_room import RemoteRoom
from tests.rooms.workers import ALICE, BOB

BRANCHES = 6
STATEMENTS_PER_EVENT_MAX = 3


def _branch(remote: RemoteRoom, number: int, base: Pdu) -> list[Pdu]:
    """Power levels, a ban, power levels again, a topic: each of them in conflict with those of other branches."""
    admin, victim = remote.user(f"admin{number}"), remote.user(f"victim{number}")
    server = remote.server
    cites = dict(server.state_after(base.event_id))
    branch: list[Pdu] = []
    levels = server.events[cites[POWER_LEVELS]].content
    first = {**levels, "users": {**levels["users"], victim: 10 + number}}
    second = {**first, "events": {**first.get("events", {}), "m.room.topic": 50 + number}}
    for event_type, state_key, content in (
        ("m.room.power_levels", "", first),
        ("m.room.member", victim, {"membership": "ban"}),
        ("m.room.power_levels", "", second),
        ("m.room.topic", "", {"topic": f"branch {number}"}),
    ):
        follows = branch[-1] if branch else base
        pdu = remote.send(
            event_type, content, sender=admin, state_key=state_key, prev_events=[follows.event_id], cites=cites
        )
        cites[(event_type, state_key)] = pdu.event_id
        branch.append(pdu)
    return branch


async def _forked(homeserver: Homeserver, version: str) -> tuple[RemoteRoom, list[list[Pdu]], Pdu]:
    """A room, the branches of a fork of it that another server has not sent yet, and what joins them."""
    levels = [(f"admin{number}", 100) for number in range(BRANCHES)]
    victims = [(f"victim{number}", 0) for number in range(BRANCHES)]
    remote = await room_with_another_server(homeserver, version=version, levels=[*levels, *victims])
    base = remote.say("here it forks", sender=remote.user("admin0"))
    await homeserver.push(remote, base)
    branches = [_branch(remote, number, base) for number in range(BRANCHES)]
    joined = remote.say("and here it ends", sender=remote.user("admin0"))
    assert len(joined.prev_events) == BRANCHES
    return remote, branches, joined


def _statements() -> float:
    names = ("heliograph_database_statement_seconds_count",)
    return sum(sample.value for metric in REGISTRY.collect() for sample in metric.samples if sample.name in names)


@pytest.mark.parametrize("version", ["6", "11", "12"])
async def test_a_fork_in_one_transaction_comes_to_the_state_that_the_other_server_has(
    homeserver: Homeserver, version: str
) -> None:
    remote, branches, joined = await _forked(homeserver, version)
    events = [branch[step] for step in range(len(branches[0])) for branch in branches]
    assert set((await homeserver.push(remote, *events, joined)).values()) == {None}
    assert await homeserver.state(remote.room_id) == remote.server.current_state
    assert await homeserver.ends(remote.room_id) == {joined.event_id}
    await check_consistent(homeserver.worker.db, remote.room_id)


async def test_branches_that_come_one_after_the_other_make_the_same_state(homeserver: Homeserver) -> None:
    """What is remembered of one transaction does not outlive it, so it makes no difference how many there are."""
    remote, branches, joined = await _forked(homeserver, "12")
    for branch in branches:
        assert set((await homeserver.push(remote, *branch)).values()) == {None}
        await check_consistent(homeserver.worker.db, remote.room_id)
    await homeserver.push(remote, joined)
    assert await homeserver.state(remote.room_id) == remote.server.current_state
    await check_consistent(homeserver.worker.db, remote.room_id)


async def test_a_fork_costs_few_statements_and_one_wake(homeserver: Homeserver) -> None:
    remote, branches, joined = await _forked(homeserver, "12")
    events = [branch[step] for step in range(len(branches[0])) for branch in branches]
    before = _statements()
    with homeserver.worker.bus.subscribe() as wakes:
        await homeserver.push(remote, *events, joined)
        wake = await wakes.next()
        assert wake.keys == {f"room:{remote.room_id}", f"state:{remote.room_id}"}
        assert wake.position == (await homeserver.get(joined)).position
        marker = frozenset({"marker"})
        await homeserver.worker.bus.wake(marker, 0)
        assert (await wakes.next()).keys == marker
    assert _statements() - before <= STATEMENTS_PER_EVENT_MAX * (len(events) + 1)


async def test_what_is_redacted_in_a_transaction_judges_as_redacted_in_the_rest_of_it(homeserver: Homeserver) -> None:
    """In room version 10 a redaction takes the level for invitations out of the power levels."""
    remote = await room_with_another_server(homeserver, version="10", levels=[("dora", 100), ("carol", 0)])
    dora, carol = remote.user("dora"), remote.user("carol")
    base = remote.say("here it forks", sender=dora)
    levels = remote.server.pdus(remote.server.current_state)[POWER_LEVELS].content
    one, other = (remote.say(body, sender=dora, prev_events=[base.event_id]) for body in ("one", "other"))
    raised = remote.send("m.room.power_levels", {**levels, "invite": 50}, sender=dora, state_key="")
    early = remote.make("m.room.member", {"membership": "invite"}, sender=carol, state_key=BOB)
    redacts = remote.send("m.room.redaction", {}, sender=dora, redacts=raised.event_id)
    late = remote.make("m.room.member", {"membership": "invite"}, sender=carol, state_key=BOB)
    outcome = await homeserver.push(remote, base, one, other, raised, early, redacts, late)
    assert {pdu.event_id for pdu in (early, late) if outcome[pdu.event_id] is not None} == {early.event_id}
    assert (await homeserver.state(remote.room_id))[member_slot(BOB)] == late.event_id
    assert (await homeserver.state(remote.room_id))[member_slot(ALICE)]
