"""A server that lies to one of ours: nothing of it is accepted, nothing breaks, and all else goes on.

https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from typing import Any
from urllib.parse import quote

import pytest

from tests.federation.deployment import Deployment
from tests.federation.lies import (
    NONSENSE,
    endless,
    foreign_event,
    giant,
    malformed_events,
    strict_breakers,
    with_bad_signature,
    with_other_content,
)
from tests.federation.peer import Peer
from tests.federation.peer_room import PeerRoom
from tests.federation.resident import V1, V2
from tests.federation.servers.encounter import Encounter
from tests.federation.servers.rooms import act, join, membership, state_content, try_join, until_membership, until_seen


async def test_one_bad_event_does_not_hold_back_the_good(encounter: Encounter) -> None:
    """S2: each event of a transaction is judged by itself."""
    room, mallory = encounter.room, encounter.peer.user("mallory")
    first = room.say(mallory, "good")
    forged = room.draft(mallory, "m.room.message", {"msgtype": "m.text", "body": "forged"})
    last = room.say(mallory, "also good")
    bad = with_bad_signature(forged, encounter.peer.name)
    outcomes = await encounter.peer.send(encounter.server.name, [first, bad, last])
    assert (outcomes[first.event_id], outcomes[last.event_id]) == ({}, {})
    assert "error" in outcomes[forged.event_id]
    await until_seen(encounter.alice, room.room_id, "good", "also good")
    assert "forged" not in await encounter.bodies()
    await encounter.check_well()


async def test_a_content_that_its_hash_does_not_cover_is_dropped(encounter: Encounter) -> None:
    room, mallory = encounter.room, encounter.peer.user("mallory")
    pdu = room.say(mallory, "as it was hashed")
    await encounter.peer.send(encounter.server.name, [with_other_content(pdu, body="as it was changed")])
    event = await encounter.alice.get(f"/rooms/{room.room_id}/event/{quote(pdu.event_id, safe='')}")
    assert event["content"] == {}
    await encounter.check_well()


async def test_malformed_events(encounter: Encounter) -> None:
    """S2, S18: none of them is stored, and none spoils the transaction that it stands in."""
    room, mallory = encounter.room, encounter.peer.user("mallory")
    pdu = room.draft(mallory, "m.room.message", {"msgtype": "m.text", "body": "never"})
    for name, event in malformed_events(room, pdu):
        good = room.say(mallory, f"beside {name}")
        reply = await encounter.peer.try_send(encounter.server.name, [event, good])
        if reply.status == 200:
            assert reply.body["pdus"][good.event_id] == {}, name
        else:
            assert reply.status == 400, (name, reply)
            await encounter.peer.send(encounter.server.name, [good])
        assert "never" not in await encounter.bodies(), name
    for name, event in strict_breakers(pdu):
        reply = await encounter.peer.try_send(encounter.server.name, [event])
        assert reply.status in (200, 400), (name, reply)
        assert "never" not in await encounter.bodies(), name
    await encounter.check_well()


async def test_events_that_the_rules_do_not_allow(encounter: Encounter) -> None:
    room, mallory, alice = encounter.room, encounter.peer.user("mallory"), encounter.alice
    other = encounter.peer.create_room(mallory)
    outsider = encounter.peer.user("outsider")
    lies = [
        room.draft(mallory, "m.room.power_levels", {"users": {mallory: 100}}, state_key=""),
        room.draft(mallory, "m.room.member", {"membership": "ban"}, state_key=alice.user_id),
        room.draft(outsider, "m.room.message", {"msgtype": "m.text", "body": "from nobody"}),
        foreign_event(room, other, mallory),
        room.draft(mallory, "m.room.create", {"room_version": "11"}, state_key="", prev_events=[]),
    ]
    outcomes = await encounter.peer.send(encounter.server.name, lies)
    # What the rules reject has been taken, as rejected; what cannot be judged has not.
    assert [outcomes[lie.event_id] == {} for lie in lies] == [True, True, True, False, False], outcomes
    assert await membership(alice, room.room_id, alice.user_id) == "join"
    levels = await state_content(alice, room.room_id, "m.room.power_levels")
    assert mallory not in levels["users"]
    assert not {"from nobody", "foreign"} & set(await encounter.bodies())
    await encounter.check_well()


async def test_events_in_the_name_of_others(encounter: Encounter, other_peer: Peer) -> None:
    """A server signs for its own users and for nobody else."""
    room, alice = encounter.room, encounter.alice
    theirs = room.draft(alice.user_id, "m.room.message", {"msgtype": "m.text", "body": "by Alice?"})  # type: ignore[arg-type]
    absent = room.draft(other_peer.user("bob"), "m.room.message", {"msgtype": "m.text", "body": "by Bob?"})
    outcomes = await encounter.peer.send(encounter.server.name, [theirs, absent])
    assert all("error" in outcome for outcome in outcomes.values()), outcomes
    assert not {"by Alice?", "by Bob?"} & set(await encounter.bodies())
    await encounter.check_well()


async def test_events_of_rooms_that_are_not_here(encounter: Encounter) -> None:
    mallory = encounter.peer.user("mallory")
    other = encounter.peer.create_room(mallory)
    pdu = other.say(mallory, "elsewhere")
    outcomes = await encounter.peer.send(encounter.server.name, [pdu])
    assert outcomes.get(pdu.event_id) != {}
    answer = await encounter.alice.call("GET", f"/rooms/{other.room_id}/messages", dir="b")
    assert answer.status == 403
    await encounter.check_well()


@pytest.mark.parametrize(("name", "answer"), NONSENSE, ids=[name for name, _ in NONSENSE])
async def test_nonsense_about_what_is_missing(encounter: Encounter, name: str, answer: Any) -> None:
    """The event that cannot be connected is not accepted; the next one, that can, is."""
    room, mallory, peer = encounter.room, encounter.peer.user("mallory"), encounter.peer
    hidden = room.draft(mallory, "m.room.message", {"msgtype": "m.text", "body": "hidden"})
    before = set(room.extremities)
    room.receive(hidden)
    loose = room.draft(mallory, "m.room.message", {"msgtype": "m.text", "body": "loose"})
    room.extremities = before
    for operation in (
        f"POST {V1}/get_missing_events/{{room_id}}",
        f"GET {V1}/state_ids/{{room_id}}",
        f"GET {V1}/state/{{room_id}}",
        f"GET {V1}/event/{{event_id}}",
        f"GET {V1}/event_auth/{{room_id}}/{{event_id}}",
    ):
        peer.answers[operation] = answer
    await peer.send(encounter.server.name, [loose])
    assert "hidden" not in await encounter.bodies(), name
    await encounter.check_well()


@pytest.mark.parametrize("answer", [endless, giant])
async def test_answers_without_end(encounter: Encounter, answer: Any) -> None:
    """S35: no more is read than an answer may have."""
    peer, alice = encounter.peer, encounter.alice
    peer.answers[f"GET {V1}/query/profile"] = lambda _: answer()
    peer.answers[f"GET {V1}/query/directory"] = lambda _: answer()
    peer.answers[f"GET {V1}/make_join/{{room_id}}/{{user_id}}"] = lambda _: answer()
    assert (await alice.call("GET", f"/profile/{peer.user('mallory')}")).status in (404, 502)
    assert (await alice.call("GET", f"/directory/room/{quote('#any:' + peer.name)}")).status in (404, 502)
    assert (await try_join(alice, f"!any:{peer.name}", peer.name)).status in (404, 502)
    await encounter.check_well()


async def test_templates_that_ask_for_something_else(encounter: Encounter) -> None:
    """S8: what another server proposes is not signed as it is."""
    peer, alice = encounter.peer, encounter.alice
    room = peer.create_room(peer.user("mallory"), join_rule="public")
    honest = room.template(alice.user_id, "join")  # type: ignore[arg-type]
    for change in (
        {"type": "m.room.power_levels", "state_key": "", "content": {"users": {}}},
        {"sender": peer.user("mallory")},
        {"state_key": peer.user("mallory")},
        {"content": {"membership": "leave"}},
        {"room_id": "!other:example.org"},
    ):
        peer.answers[f"GET {V1}/make_join/{{room_id}}/{{user_id}}"] = {
            "room_version": room.version.identifier,
            "event": {**honest, **change},
        }
        answer = await try_join(alice, room.room_id, peer.name)
        for request in peer.asked("send_join"):
            event = request.body
            signed = (event["type"], event["sender"], event["state_key"], event["content"]["membership"])
            assert signed == ("m.room.member", alice.user_id, alice.user_id, "join"), change
            assert event["room_id"] == room.room_id
        if answer.status == 200:
            await act(alice, "leave", room.room_id)
    await encounter.check_well()


async def test_joins_with_states_that_cannot_be(encounter: Encounter) -> None:
    """S12, S19: a room whose state does not hold together is not joined."""
    peer, alice = encounter.peer, encounter.alice
    mallory = peer.user("mallory")
    other = peer.create_room(mallory)
    for name in ("no create event", "bad signature", "auth chain missing", "of another room", "not a list", "giant"):
        room = peer.create_room(mallory)

        async def lie(request: Any, name: str = name, room: PeerRoom = room) -> Any:
            honest = await peer.take_join(request)
            create = room.current("m.room.create")
            assert create is not None
            state, auth_chain = list(honest["state"]), list(honest["auth_chain"])
            match name:
                case "no create event":
                    state = [event for event in state if event["type"] != "m.room.create"]
                    auth_chain = [event for event in auth_chain if event["type"] != "m.room.create"]
                case "bad signature":
                    bad = with_bad_signature(create, peer.name)
                    state = [bad if event["type"] == "m.room.create" else event for event in state]
                    auth_chain = [bad if event["type"] == "m.room.create" else event for event in auth_chain]
                case "auth chain missing":
                    state = [event for event in state if event["type"] == "m.room.join_rules"]
                    auth_chain = []
                case "of another room":
                    state = [pdu.json for pdu in other.pdus(other.current_state).values()]
                    auth_chain = state
                case "not a list":
                    state = {"create": create.json}  # type: ignore[assignment]
                case _:
                    return giant()
            return {**honest, "state": state, "auth_chain": auth_chain}

        peer.answers[f"PUT {V2}/send_join/{{room_id}}/{{event_id}}"] = lie
        answer = await try_join(alice, room.room_id, peer.name)
        assert 400 <= answer.status < 600, name
        assert answer.status != 500, name
        assert room.room_id not in (await alice.get("/joined_rooms"))["joined_rooms"], name
    peer.answers[f"PUT {V2}/send_join/{{room_id}}/{{event_id}}"] = peer.take_join
    good = peer.create_room(mallory)
    await join(alice, good.room_id, peer.name)
    await encounter.check_well()


async def test_ephemeral_lies(encounter: Encounter) -> None:
    """S16: servers speak for their own users alone, and only in rooms that these are in."""
    room_id, alice, peer = encounter.room_id, encounter.alice, encounter.peer
    edus: list[Any] = [
        {"edu_type": "m.typing", "content": {"room_id": room_id, "user_id": alice.user_id, "typing": True}},
        {"edu_type": "m.typing", "content": {"room_id": room_id, "user_id": peer.user("outsider"), "typing": True}},
        {"edu_type": "m.typing", "content": {"room_id": 7, "user_id": [], "typing": "perhaps"}},
        {
            "edu_type": "m.receipt",
            "content": {room_id: {"m.read": {alice.user_id: {"event_ids": ["$x"], "data": {"ts": 1}}}}},
        },
        {"edu_type": "m.receipt", "content": {room_id: {"m.read": {peer.user("mallory"): {"event_ids": 7}}}}},
        {"edu_type": "m.presence", "content": {"push": [{"user_id": alice.user_id, "presence": "unavailable"}]}},
        {"edu_type": "m.presence", "content": {"push": [7, {}, {"user_id": 7}]}},
        {"edu_type": "m.presence", "content": {"push": "x"}},
        {"edu_type": "org.example.unknown", "content": {}},
        {"edu_type": 7, "content": {}},
        7,
    ]
    for edu in edus:
        reply = await peer.try_send(encounter.server.name, edus=[edu])
        assert reply.status in (200, 400), (edu, reply)
    answer = await alice.sync()
    ephemeral = answer["rooms"]["join"][room_id]["ephemeral"]["events"]
    told = str([event for event in ephemeral if event["type"] in ("m.typing", "m.receipt")])
    assert alice.user_id not in told
    assert peer.user("outsider") not in told
    await encounter.check_well()


async def test_invitations_with_a_strange_state(encounter: Encounter) -> None:
    """S4, S5: what an invitation says of its room is neither believed nor able to break a sync."""
    peer, alice = encounter.peer, encounter.alice
    room = peer.create_room(peer.user("mallory"), join_rule="invite")
    strange: list[Any] = [
        [7, None, "x", [], {}],
        [{"type": 7, "state_key": 7, "sender": 7, "content": 7}],
        [{"type": "m.room.name", "state_key": "", "sender": peer.user("mallory"), "content": {"name": [1]}}],
        [{"type": "m.room.topic", "state_key": "", "sender": "x", "content": {"topic": "t" * 100_000}}] * 20,
        "x",
    ]
    for stripped in strange:
        pdu = room.draft(peer.user("mallory"), "m.room.member", {"membership": "invite"}, state_key=alice.user_id)
        body = {"room_version": room.version.identifier, "event": pdu.json, "invite_room_state": stripped}
        path = f"{V2}/invite/{quote(room.room_id, safe='')}/{quote(pdu.event_id, safe='')}"
        reply = await peer.ask(encounter.server.name, "PUT", path, body)
        assert reply.status in (200, 400, 403, 413), reply
        answer = await alice.sync()
        assert len(str(answer)) < 500_000
    await encounter.check_well()


async def test_transactions_that_are_too_large(encounter: Encounter) -> None:
    room, mallory = encounter.room, encounter.peer.user("mallory")
    pdu = room.draft(mallory, "m.room.message", {"msgtype": "m.text", "body": "one of many"})
    assert (await encounter.peer.try_send(encounter.server.name, [pdu] * 51)).status == 400
    edu = {"edu_type": "org.example.unknown", "content": {}}
    assert (await encounter.peer.try_send(encounter.server.name, edus=[edu] * 101)).status == 400
    await encounter.check_well()


async def test_requests_that_are_not_signed_right(encounter: Encounter, other_peer: Peer) -> None:
    peer, name = encounter.peer, encounter.server.name
    path = f"{V1}/query/profile"
    user_id = encounter.alice.user_id
    for lie in (
        {"uri": "/other"},
        {"method": "PUT"},
        {"destination": "elsewhere.example"},
        {"origin": other_peer.name},
        {"content": {"extra": True}},
    ):
        reply = await peer.ask(name, "GET", path, lie=lie, user_id=user_id)
        assert (reply.status, reply.errcode) in ((401, "M_UNAUTHORIZED"), (403, "M_FORBIDDEN")), lie
    assert (await peer.ask(name, "GET", path, user_id=user_id)).status == 200
    await encounter.check_well()


async def test_keys_that_are_not_the_servers(deployment: Deployment, peer: Peer, other_peer: Peer) -> None:
    """A server that publishes the keys of another, or unsigned ones, or none at all, is not believed."""
    (server,) = await deployment.start()
    async with server.user("alice") as alice:
        own = peer.server_keys()
        for answer in (
            {**own, "server_name": other_peer.name},
            {**own, "signatures": {}},
            {**own, "valid_until_ts": "tomorrow"},
            other_peer.server_keys(),
            *(nonsense for _, nonsense in NONSENSE),
            lambda _: endless(),
        ):
            peer.answers["GET /_matrix/key/v2/server"] = answer
            reply = await peer.ask(server.name, "GET", f"{V1}/query/profile", user_id=alice.user_id)
            assert reply.status == 401, answer


async def test_a_room_with_users_of_both_is_left_in_peace(encounter: Encounter) -> None:
    """After all of that, an honest server joins and sees the same state as ours."""
    room = encounter.room
    await until_membership(encounter.alice, room.room_id, encounter.peer.user("mallory"), "join")
    await encounter.check_well()
    assert encounter.peer.faults == []
