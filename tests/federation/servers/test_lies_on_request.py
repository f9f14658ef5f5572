"""A server that lies when it is asked for what its events refer to: every answer goes through the same gate.

https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from homeserver.core.ids import RoomId
from homeserver.core.pdu import Pdu
from tests.federation.deployment import Deployment
from tests.federation.lies import with_bad_signature, with_other_content
from tests.federation.peer import Peer
from tests.federation.resident import V1
from tests.federation.servers.encounter import Encounter
from tests.federation.servers.rooms import state_content, until_seen
from tests.federation.signed_http import Received

MISSING = f"POST {V1}/get_missing_events/{{room_id}}"
STATE_IDS = f"GET {V1}/state_ids/{{room_id}}"
STATE = f"GET {V1}/state/{{room_id}}"
EVENT = f"GET {V1}/event/{{event_id}}"


def hidden_and_next(encounter: Encounter, event_type: str, content: Any, **rest: Any) -> tuple[Pdu, Pdu]:
    """An event that our server has not been sent, and a message after it."""
    room = encounter.room
    hidden = room.send(encounter.mallory, event_type, content, **rest)
    following = room.say(encounter.mallory, "after it")
    return hidden, following


async def test_missing_events_are_fetched(encounter: Encounter) -> None:
    """So that the lies of the other tests would be believed if nobody looked."""
    hidden, following = hidden_and_next(encounter, "m.room.message", {"msgtype": "m.text", "body": "hidden"})
    assert await encounter.peer.send(encounter.server.name, [following]) == {following.event_id: {}}
    await until_seen(encounter.alice, encounter.room_id, "hidden", "after it")
    assert encounter.peer.asked("get_missing_events")
    assert hidden.event_id in [event["event_id"] for event in await encounter.alice.history(encounter.room_id)]


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda pdu, name: with_bad_signature(pdu, name), id="bad signature"),
        pytest.param(lambda pdu, _: {**pdu.json, "signatures": {}}, id="no signature"),
        pytest.param(lambda pdu, _: {**pdu.json, "room_id": "!other:example.org"}, id="other room"),
        pytest.param(lambda pdu, _: {**pdu.json, "depth": "deep"}, id="malformed"),
    ],
)
async def test_missing_events_are_checked(encounter: Encounter, lie: Callable[[Pdu, str], Any]) -> None:
    """S6: however an event comes, its signature is looked at."""
    hidden, following = hidden_and_next(encounter, "m.room.message", {"msgtype": "m.text", "body": "hidden"})
    false = lie(hidden, encounter.peer.name)
    encounter.peer.answers[MISSING] = {"events": [false]}
    encounter.peer.answers[EVENT] = {"origin": encounter.peer.name, "origin_server_ts": 1, "pdus": [false]}
    await encounter.peer.send(encounter.server.name, [following])
    assert "hidden" not in await encounter.bodies()
    encounter.peer.answers |= {MISSING: encounter.peer.give_missing_events, EVENT: encounter.peer.give_event}
    await encounter.check_well()


async def test_a_missing_event_with_another_content_is_redacted(encounter: Encounter) -> None:
    hidden, following = hidden_and_next(encounter, "m.room.message", {"msgtype": "m.text", "body": "hidden"})
    encounter.peer.answers[MISSING] = {"events": [with_other_content(hidden, body="changed")]}
    await encounter.peer.send(encounter.server.name, [following])
    await until_seen(encounter.alice, encounter.room_id, "after it")
    assert not {"hidden", "changed"} & set(await encounter.bodies())
    await encounter.check_well()


async def test_a_state_is_not_taken_as_it_is_told(encounter: Encounter) -> None:
    """S12: what a server says the state was is resolved with what this server knows; it cannot reset a room."""
    room, alice, peer = encounter.room, encounter.alice, encounter.peer
    await alice.send(room.room_id, "before")
    levels_before = await state_content(alice, room.room_id, "m.room.power_levels")
    first = room.say(encounter.mallory, "never told")
    last = room.say(encounter.mallory, "from nowhere")
    create = room.current("m.room.create")
    assert create is not None
    # All events in between are kept secret, and the state is said to be next to nothing.
    peer.answers[MISSING] = {"events": []}
    peer.answers[STATE_IDS] = {"pdu_ids": [create.event_id], "auth_chain_ids": []}
    peer.answers[STATE] = {"pdus": [create.json], "auth_chain": []}
    peer.answers[EVENT] = (404, {"errcode": "M_NOT_FOUND", "error": "gone"})
    await peer.send(encounter.server.name, [last])
    assert await state_content(alice, room.room_id, "m.room.power_levels") == levels_before
    assert await state_content(alice, room.room_id, "m.room.member", alice.user_id) is not None
    assert (await alice.get(f"/rooms/{room.room_id}/joined_members"))["joined"].keys() >= {alice.user_id}
    await alice.send(room.room_id, "still here")
    peer.answers |= {MISSING: peer.give_missing_events, EVENT: peer.give_event}
    assert first.event_id in room.events
    await encounter.check_well()


async def test_rejected_events_stay_rejected(encounter: Encounter) -> None:
    """S11: an event that failed is not let in by another way, as part of a state or as a permission."""
    room, peer, alice = encounter.room, encounter.peer, encounter.alice
    grab = room.draft(encounter.mallory, "m.room.power_levels", {"users": {encounter.mallory: 100}}, state_key="")
    outcomes = await peer.send(encounter.server.name, [grab])
    assert outcomes == {grab.event_id: {}}, "it has been taken, as rejected"
    room.events[grab.event_id] = grab
    cites = {**room.current_state, ("m.room.power_levels", ""): grab.event_id}
    topic = room.draft(encounter.mallory, "m.room.topic", {"topic": "grabbed"}, state_key="", cites=cites)
    outcomes = await peer.send(encounter.server.name, [topic, grab])
    assert outcomes == {topic.event_id: {}, grab.event_id: {}}
    assert await state_content(alice, room.room_id, "m.room.topic") is None
    del room.events[grab.event_id]
    await encounter.check_well()


async def test_graphs_without_beginning(deployment: Deployment, peer: Peer) -> None:
    """S13: in room version 1 servers choose ids, so events can refer to each other in a circle."""
    (server,) = await deployment.start()
    async with server.user("alice") as alice:
        room_id = RoomId(await alice.create_room(preset="public_chat", room_version="1"))
        room = await peer.join(server.name, room_id, peer.user("mallory"))
        encounter = Encounter(server, alice, peer, room)
        honest = room.draft(encounter.mallory, "m.room.message", {"msgtype": "m.text", "body": "circle"})
        names = [f"$circle{number}:{peer.name}" for number in range(3)]

        def circle(references: str) -> Sequence[Any]:
            return [
                room.forge(
                    {
                        **honest.json,
                        "event_id": name,
                        references: [[names[number - 1], {"sha256": "AAAA"}]],
                    }
                )
                for number, name in enumerate(names)
            ]

        for references in ("prev_events", "auth_events"):
            events = circle(references)
            peer.answers[MISSING] = {"events": events}
            peer.answers[f"GET {V1}/event_auth/{{room_id}}/{{event_id}}"] = {"auth_chain": events}
            peer.answers[EVENT] = partial(_one_of, events)
            await peer.send(server.name, events)
            assert "circle" not in await encounter.bodies()
        await encounter.check_well()


def _one_of(events: Sequence[Any], request: Received) -> Any:
    """The one event that was asked for."""
    found = [event for event in events if event["event_id"] == request.path["event_id"]]
    return {"origin": "", "origin_server_ts": 1, "pdus": found}


async def test_redactions_that_redact_each_other(deployment: Deployment, peer: Peer) -> None:
    """S14: nothing follows a chain of redactions for ever, and the create event cannot be emptied by a user."""
    (server,) = await deployment.start()
    async with server.user("alice") as alice:
        room_id = RoomId(await alice.create_room(preset="public_chat", room_version="1"))
        room = await peer.join(server.name, room_id, peer.user("mallory"))
        encounter = Encounter(server, alice, peer, room)
        create = room.current("m.room.create")
        assert create is not None
        template = room.draft(encounter.mallory, "m.room.redaction", {}, redacts=create.event_id)
        names = [f"$r{number}:{peer.name}" for number in range(2)]
        pair = [
            room.forge({**template.json, "event_id": name, "redacts": other})
            for name, other in zip(names, reversed(names), strict=True)
        ]
        self_named = room.forge({**template.json, "event_id": f"$self:{peer.name}", "redacts": f"$self:{peer.name}"})
        await peer.send(server.name, [template, *pair, self_named])
        for event in (*pair, self_named):
            room.receive(room.parse(event))
        content = await state_content(alice, room_id, "m.room.create")
        assert content["creator"] == alice.user_id
        await alice.history(room_id)
        await alice.sync()
        await encounter.check_well()


async def test_a_server_that_answers_nothing(encounter: Encounter) -> None:
    """While one transaction waits for an answer that does not come, everything else goes on."""
    room, peer = encounter.room, encounter.peer
    _, following = hidden_and_next(encounter, "m.room.message", {"msgtype": "m.text", "body": "hidden"})
    peer.answers[MISSING] = peer.silence
    peer.answers[STATE_IDS] = peer.silence
    async with peer.sending(encounter.server.name, [following]):
        event_id = await encounter.alice.send(room.room_id, "meanwhile")
        await until_seen(encounter.alice, room.room_id, "meanwhile")
        other = await encounter.alice.create_room(preset="public_chat")
        await peer.join(encounter.server.name, RoomId(other), peer.user("second"))
    assert event_id
