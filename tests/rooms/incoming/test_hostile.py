"""Servers that do not mean well, and what they cannot do."""

import asyncio

import pytest

from homeserver.core.errors import Forbidden, NotFound, RemoteUnavailable, UnavailableForNow
from homeserver.core.event_auth.auth_events import member_slot
from homeserver.core.ids import EventId, ServerName
from homeserver.core.pdu import Pdu
from homeserver.core.signing import sign_event
from homeserver.services.remote import EventJson, StateEvents, StateIds
from homeserver.services.rooms.drafts import Draft
from tests.rooms.consistency import check_consistent
from tests.rooms.incoming.homeserver import ELSEWHERE, Homeserver, room_with_another_server
from tests.rooms.incoming.remote_room import RemoteRoom, key_of
from tests.rooms.workers import ALICE, BOB, SERVER, member, message

THIRD = ServerName("third.org")


async def test_events_are_signed_by_whom_they_say(homeserver: Homeserver) -> None:
    """S6: also those that are fetched, not only those that are pushed."""
    remote = await room_with_another_server(homeserver)
    dora = remote.user("dora")
    forged = remote.make("m.room.name", {"name": "by Alice"}, sender=ALICE, state_key="")
    assert (await homeserver.push(remote, forged))[forged.event_id] is not None
    assert await homeserver.stored(forged) is None
    remote.server.events[forged.event_id] = forged
    remote.server.states_before[forged.event_id] = remote.server.current_state
    follower = remote.make("m.room.message", {"body": "x"}, sender=dora, prev_events=[forged.event_id])
    assert (await homeserver.push(remote, follower))[follower.event_id] is not None
    assert await homeserver.stored(forged) is None
    await check_consistent(homeserver.worker.db, remote.room_id)


async def test_an_answer_is_not_more_than_was_asked_for(homeserver: Homeserver) -> None:
    """Events that nothing leads to are not taken from an answer to get_missing_events."""
    remote = await room_with_another_server(homeserver)
    dora = remote.user("dora")
    base = sorted(remote.server.extremities)
    lost = remote.say("lost", sender=dora)
    after = remote.say("after", sender=dora)
    smuggled = remote.make("m.room.message", {"body": "smuggled"}, sender=dora, prev_events=base)
    answer = remote.get_missing_events

    async def with_more(*args: object, **options: object) -> list[object]:
        return [smuggled.json, *await answer(*args, **options)]  # type: ignore[arg-type]

    remote.get_missing_events = with_more  # type: ignore[method-assign, assignment]
    assert await homeserver.push(remote, after) == {after.event_id: None}
    assert (await homeserver.get(lost)).position is not None
    assert await homeserver.stored(smuggled) is None


async def test_a_room_is_not_reset_to_a_state_that_somebody_claims(homeserver: Homeserver) -> None:
    """S12: what another server says of the state at a gap is one voice among those that are known."""
    remote = await room_with_another_server(homeserver)
    dora = remote.user("dora")
    named = await homeserver.worker.add(
        remote.room_id, Draft(type="m.room.name", sender=ALICE, state_key="", content={"name": "ours"})
    )
    await homeserver.worker.add(remote.room_id, member(BOB, "join"))
    await homeserver.tell(remote)
    state = await homeserver.state(remote.room_id)
    lost = remote.say("lost", sender=dora)
    after = remote.say("after", sender=dora)
    remote.gives_missing_events = False
    kept = [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.join_rules", ""), member_slot(dora)]
    few = [state[slot] for slot in kept]

    async def claimed(*_: object) -> StateIds:
        return StateIds(few, remote.auth_chain(few))

    remote.state_ids = claimed  # type: ignore[method-assign, assignment]
    assert await homeserver.push(remote, after) == {after.event_id: None}
    assert await homeserver.state(remote.room_id) == state
    assert state[("m.room.name", "")] == named.events[0].event_id
    assert await homeserver.stored(lost) is not None
    await check_consistent(homeserver.worker.db, remote.room_id)


@pytest.mark.parametrize("claim", ["nothing", "no_create", "of_another_room", "nonsense"])
async def test_a_state_that_is_none_is_not_believed(homeserver: Homeserver, claim: str) -> None:
    remote = await room_with_another_server(homeserver, version="10")
    other = await room_with_another_server(homeserver, version="10")
    homeserver.remotes.rooms[remote.name] = remote
    state = list(remote.server.current_state.values())
    create = remote.server.current_state[("m.room.create", "")]
    claims = {
        "nothing": [],
        "no_create": [each for each in state if each != create],
        "of_another_room": list(other.server.current_state.values()),
        "nonsense": [EventId(f"$nothing{number}") for number in range(500)],
    }
    before = await homeserver.state(remote.room_id), await homeserver.ends(remote.room_id)
    remote.say("lost", sender=remote.user("dora"))
    after = remote.say("after", sender=remote.user("dora"))
    remote.gives_missing_events = False

    async def claimed(*_: object) -> StateIds:
        return StateIds(claims[claim], claims[claim])

    remote.state_ids = claimed  # type: ignore[method-assign, assignment]
    assert (await homeserver.push(remote, after))[after.event_id] is not None
    assert (await homeserver.state(remote.room_id), await homeserver.ends(remote.room_id)) == before
    assert len(remote.asked) < 150


async def test_a_bad_connection_takes_nothing_out_of_the_state(homeserver: Homeserver) -> None:
    """What cannot be had one by one is had as a whole, or the event is not taken."""
    remote = await room_with_another_server(homeserver)
    dora = remote.user("dora")
    named = remote.send("m.room.name", {"name": "x"}, sender=dora, state_key="")
    lost = remote.say("lost", sender=dora)
    after = remote.say("after", sender=dora)
    remote.gives_missing_events = False
    is_down = True

    async def event(via: ServerName, event_id: EventId) -> EventJson:
        if event_id != lost.event_id:
            raise RemoteUnavailable("lost on the way")
        return lost.json

    async def state(*_: object) -> StateEvents:
        if is_down:
            raise RemoteUnavailable("lost on the way")
        events = [pdu.json for pdu in remote.server.events.values() if pdu.event_id != after.event_id]
        return StateEvents(events, [])

    remote.event, remote.state = event, state  # type: ignore[method-assign, assignment]
    assert (await homeserver.push(remote, after))[after.event_id] is not None
    assert await homeserver.stored(after) is None
    is_down = False
    assert await homeserver.push(remote, after) == {after.event_id: None}
    assert (await homeserver.state(remote.room_id))[("m.room.name", "")] == named.event_id


async def test_auth_events_that_cannot_be_had_reject_nothing_for_good(homeserver: Homeserver) -> None:
    remote = await room_with_another_server(homeserver)
    eve = remote.user("eve")
    joined = remote.join(eve)
    remote.withheld.add(joined.event_id)
    base = sorted(await homeserver.ends(remote.room_id))
    said = remote.make("m.room.message", {"body": "x"}, sender=eve, prev_events=base, cites=remote.server.current_state)
    remote.server.receive(said)
    assert (await homeserver.push(remote, said))[said.event_id] is not None
    assert await homeserver.stored(said) is None
    remote.withheld.clear()
    outcome = await homeserver.push(remote, said)
    assert outcome[said.event_id] is not None, "the state before it lacks Eve"
    assert (await homeserver.get(said)).rejected is not None
    assert await homeserver.stored(joined) is not None


async def test_ids_of_version_1_cannot_be_taken_from_another_room(homeserver: Homeserver) -> None:
    """S10"""
    remote = await room_with_another_server(homeserver, version="1")
    other = await room_with_another_server(homeserver, version="1")
    said = other.say("there", sender=other.user("dora"))
    await homeserver.push(other, said)
    thief = remote.make("m.room.message", {"body": "here"}, sender=remote.user("dora"))
    json = {**thief.json, "event_id": said.event_id, "signatures": {}}
    signed = sign_event(json, remote.name, key_of(remote.name), thief.room_version)
    outcome = await homeserver.incoming.receive(remote.name, remote.room_id, [signed])
    assert outcome[said.event_id] is not None
    assert (await homeserver.get(said)).room_id == other.room_id


async def test_events_do_not_follow_those_of_another_room(homeserver: Homeserver) -> None:
    """S1: the state before them would be that of the other room."""
    remote = await room_with_another_server(homeserver)
    other = await room_with_another_server(homeserver)
    ends = sorted(remote.server.extremities)
    said = other.say("there", sender=other.user("dora"))
    await homeserver.push(other, said)
    remote.server.events |= other.server.events
    remote.server.states_before |= other.server.states_before
    cites = remote.server.current_state
    for prev_events in ([said.event_id], [*ends, said.event_id]):
        pdu = remote.make(
            "m.room.message", {"body": "x"}, sender=remote.user("dora"), prev_events=prev_events, cites=cites
        )
        assert (await homeserver.push(remote, pdu))[pdu.event_id] is not None
        assert await homeserver.stored(pdu) is None


async def test_events_in_a_circle(homeserver: Homeserver) -> None:
    """S13, S14: version 1 lets events choose their ids."""
    remote = await room_with_another_server(homeserver, version="1")
    template = remote.make("m.room.message", {"body": "x"}, sender=remote.user("dora"))

    def following(event_id: str, *prev_events: str) -> dict[str, object]:
        references = [[each, {"sha256": "AA"}] for each in prev_events]
        json = {**template.json, "event_id": event_id, "prev_events": references, "signatures": {}}
        return sign_event(json, remote.name, key_of(remote.name), template.room_version)

    host = remote.name
    circle = [following(f"$a:{host}", f"$b:{host}"), following(f"$b:{host}", f"$a:{host}")]
    alone = following(f"$c:{host}", f"$c:{host}")
    good = remote.say("good", sender=remote.user("dora"))
    outcome = await homeserver.incoming.receive(remote.name, remote.room_id, [*circle, alone, good.json])
    assert {event_id for event_id, error in outcome.items() if error is None} == {good.event_id}
    assert len(outcome) == 4
    none = following(f"$d:{host}")
    assert set((await homeserver.incoming.receive(host, remote.room_id, [none])).values()) != {None}


async def test_a_server_that_is_kept_out_is_not_listened_to(homeserver: Homeserver) -> None:
    """S7: neither itself, nor by way of another server; in whatever case its name is written."""
    remote = await room_with_another_server(homeserver)
    relay = homeserver.meet(remote.room_id, remote.room_version, THIRD)
    relay.server.events, relay.server.states_before = remote.server.events, remote.server.states_before
    relay.server.extremities = remote.server.extremities
    await homeserver.push(relay, relay.join(relay.user("carol")))
    acl = {"allow": ["*"], "deny": ["ELSEWHERE.org"]}
    await homeserver.worker.add(
        remote.room_id, Draft(type="m.room.server_acl", sender=ALICE, state_key="", content=acl)
    )
    await homeserver.tell(remote)
    said = remote.say("let me in", sender=remote.user("dora"))
    assert (await homeserver.push(remote, said))[said.event_id] is not None
    assert (await homeserver.push(relay, said))[said.event_id] is not None
    assert await homeserver.stored(said) is None
    after = relay.make(
        "m.room.message",
        {"body": "fine"},
        sender=relay.user("carol"),
        prev_events=sorted(await homeserver.ends(remote.room_id)),
    )
    assert await homeserver.push(relay, after) == {after.event_id: None}


async def test_a_server_that_was_never_there_passes_nothing_on(homeserver: Homeserver) -> None:
    remote = await room_with_another_server(homeserver)
    stranger = homeserver.meet(remote.room_id, remote.room_version, THIRD)
    said = remote.say("hello", sender=remote.user("dora"))
    assert (await homeserver.push(stranger, said))[said.event_id] is not None
    assert await homeserver.push(remote, said) == {said.event_id: None}


async def test_rooms_that_this_server_is_not_in(homeserver: Homeserver) -> None:
    """Only the end of a local user's invitation or knock is of interest, and somebody else decides about that."""
    remote = await room_with_another_server(homeserver)
    await homeserver.worker.add(remote.room_id, member(ALICE, "leave"))
    await homeserver.tell(remote)
    dora = remote.user("dora")
    said = remote.say("anybody there?", sender=dora)
    kick = remote.make("m.room.member", {"membership": "leave"}, sender=dora, state_key=BOB)
    foreign = remote.make("m.room.member", {"membership": "leave"}, sender=dora, state_key="@x:third.org")
    odd = remote.make("m.room.member", {"membership": "leave"}, sender=dora, state_key="nobody")
    outcome = await homeserver.push(remote, said, kick, foreign, odd)
    assert {event_id for event_id, error in outcome.items() if error is None} == {kick.event_id}
    assert [pdu.event_id for pdu in homeserver.outside.received] == [kick.event_id]
    assert await homeserver.stored(said) is None


async def test_what_is_handed_in_must_be_allowed(homeserver: Homeserver) -> None:
    """`add`, as send_join uses it: what would be rejected or soft-failed is refused and not stored."""
    remote = await room_with_another_server(homeserver)
    eve = remote.user("eve")
    join = remote.make("m.room.member", {"membership": "join"}, sender=eve, state_key=eve)
    added = await homeserver.incoming.add(remote.name, join, relay=True)
    assert added.position is not None
    assert (await homeserver.incoming.add(remote.name, join, relay=True)).position is None
    async with homeserver.worker.db.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM relayed_events") == 1
    base = sorted(await homeserver.ends(remote.room_id))
    remote.server.receive(join)
    await homeserver.worker.add(remote.room_id, member(eve, "ban", sender=ALICE))
    late = remote.make("m.room.member", {"membership": "leave"}, sender=eve, state_key=eve, prev_events=base)
    with pytest.raises(Forbidden):
        await homeserver.incoming.add(remote.name, late)
    assert await homeserver.stored(late) is None
    forged = remote.make("m.room.name", {"name": "x"}, sender=eve, state_key="")
    with pytest.raises(Forbidden):
        await homeserver.incoming.add(remote.name, forged)
    lost = remote.say("lost", sender=remote.user("dora"))
    remote.withheld.add(lost.event_id)
    after = remote.make("m.room.message", {"body": "x"}, sender=remote.user("dora"))
    for origin in (remote.name, SERVER):
        with pytest.raises(UnavailableForNow):
            await homeserver.incoming.add(origin, after)
    unknown = RemoteRoom(ELSEWHERE, type(remote.room_id)("!" + "x" * 43), remote.room_version)
    with pytest.raises(NotFound):
        await homeserver.incoming.add(remote.name, _moved(join, unknown))


def _moved(pdu: Pdu, room: RemoteRoom) -> Pdu:
    return Pdu.trusted({**pdu.json, "room_id": room.room_id}, pdu.event_id, pdu.room_version, room.room_id)


async def test_two_processes_receive_the_same_at_the_same_time(
    homeserver: Homeserver, other_homeserver: Homeserver
) -> None:
    """Each event is there once, and both servers of the other side are told that it is."""
    remote = await room_with_another_server(homeserver)
    dora = remote.user("dora")
    said = [remote.say(str(number), sender=dora) for number in range(30)]
    named = remote.send("m.room.name", {"name": "x"}, sender=dora, state_key="")
    async with asyncio.TaskGroup() as tasks:
        sent = [
            tasks.create_task(at.push(remote, *events))
            for at in (homeserver, other_homeserver)
            for events in ([*said, named], [named], said[:10])
        ]
        tasks.create_task(homeserver.worker.add(remote.room_id, message("in between")))
    assert {error for task in sent for error in task.result().values()} == {None}
    shown = await homeserver.shown(remote.room_id)
    assert [event_id for event_id in shown if event_id in {pdu.event_id for pdu in said}] == [
        pdu.event_id for pdu in said
    ]
    await check_consistent(homeserver.worker.db, remote.room_id)
