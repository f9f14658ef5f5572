"""Single events, states and auth chains for other servers."""

from typing import Any
from urllib.parse import quote

import orjson
import pytest

from homeserver.core.hashing import event_id_of
from homeserver.core.ids import UserId
from homeserver.core.room_versions import room_version_named
from homeserver.services.rooms.drafts import Draft
from tests.api.server import refused
from tests.federation.reading.world import BOB, OTHER, THIRD, World


async def test_an_event_is_told_whole(world: World) -> None:
    room_id = await world.create_room()
    await world.membership(room_id, BOB, "join")
    event_id = await world.send(room_id, "hello")
    answer = await world.answer(f"/event/{event_id}")
    assert answer["origin"] == "test"
    assert abs(answer["origin_server_ts"] - world.site.clock.now_ms()) < 60_000
    (pdu,) = answer["pdus"]
    assert pdu["content"] == {"msgtype": "m.text", "body": "hello"}
    assert {"auth_events", "prev_events", "hashes", "signatures", "depth", "room_id", "sender", "type"} <= set(pdu)
    assert "test" in pdu["signatures"]


async def test_nothing_of_a_clients_request_is_told(world: World) -> None:
    """S23: no transaction id, no device, no `unsigned` of clients."""
    room_id = await world.create_room()
    await world.membership(room_id, BOB, "join")
    event_id = await world.send(room_id, "secret-transaction")
    old = await world.set_state(room_id, "m.room.topic", {"topic": "old"})
    new = await world.set_state(room_id, "m.room.topic", {"topic": "new"})
    for each in (event_id, old, new):
        reply = await world.ask(f"/event/{each}")
        assert b"t-secret" not in reply.body
        assert b"unsigned" not in reply.body
        assert world.alice.device_id.encode() not in reply.body


async def test_what_a_server_may_not_see_is_redacted(world: World) -> None:
    """S20: it needs the event for its graph, not its content."""
    room_id = await world.create_room(initial_state=[_visibility("joined")])
    hidden = await world.send(room_id, "hidden")
    await world.membership(room_id, BOB, "join")
    seen = await world.send(room_id, "seen")
    (pdu,) = (await world.answer(f"/event/{hidden}"))["pdus"]
    assert (pdu["content"], pdu["type"]) == ({}, "m.room.message")
    assert f"${_hash_of(pdu, 'default')}" == hidden
    (pdu,) = (await world.answer(f"/event/{seen}"))["pdus"]
    assert pdu["content"]["body"] == "seen"


async def test_messages_of_erased_users_are_redacted(world: World) -> None:
    room_id = await world.create_room()
    await world.membership(room_id, BOB, "join")
    carol = await world.site.register("carol")
    await carol.post(f"/rooms/{room_id}/join")
    sent = await carol.put(f"/rooms/{room_id}/send/m.room.message/1", {"msgtype": "m.text", "body": "mine"})
    assert (await world.answer(f"/event/{sent['event_id']}"))["pdus"][0]["content"]["body"] == "mine"
    await world.execute("UPDATE users SET erased = true WHERE user_id = $1", carol.user_id)
    assert (await world.answer(f"/event/{sent['event_id']}"))["pdus"][0]["content"] == {}


async def test_redacted_events_are_told_redacted(world: World) -> None:
    room_id = await world.create_room()
    await world.membership(room_id, BOB, "join")
    event_id = await world.send(room_id, "oops")
    await world.alice.put(f"/rooms/{room_id}/redact/{event_id}/1", {"reason": "private"})
    (pdu,) = (await world.answer(f"/event/{event_id}"))["pdus"]
    assert pdu["content"] == {}
    assert "unsigned" not in pdu


async def test_rejected_soft_failed_and_outlying_events(world: World) -> None:
    """S23: a soft-failed event is part of the graph, a rejected one is not told of, an outlier only if it is state."""
    room_id = await world.create_room()
    await world.membership(room_id, BOB, "join")
    rejected, soft_failed, outlier = [await world.send(room_id, each) for each in ("rejected", "soft", "outlier")]
    state_outlier = await world.set_state(room_id, "m.room.topic", {"topic": "t"})
    await world.execute("UPDATE events SET rejected = 'test', topological = NULL WHERE event_id = $1", rejected)
    await world.execute("UPDATE events SET soft_failed = true, topological = NULL WHERE event_id = $1", soft_failed)
    await world.execute(
        "UPDATE events SET state_id = NULL, topological = NULL WHERE event_id = ANY ($1)", [outlier, state_outlier]
    )
    refused(await world.ask(f"/event/{rejected}"), 404, "M_NOT_FOUND")
    refused(await world.ask(f"/event/{outlier}"), 404, "M_NOT_FOUND")
    assert (await world.answer(f"/event/{soft_failed}"))["pdus"][0]["content"]["body"] == "soft"
    assert (await world.answer(f"/event/{state_outlier}"))["pdus"][0]["content"] == {"topic": "t"}
    for path in (f"/state/{room_id}", f"/state_ids/{room_id}"):
        for event_id in (rejected, outlier, state_outlier):
            refused(await world.ask(path, event_id=event_id), 404, "M_NOT_FOUND")
        assert (await world.ask(path, event_id=soft_failed)).status == 200
    refused(await world.ask(f"/event_auth/{room_id}/{rejected}"), 404, "M_NOT_FOUND")


@pytest.mark.parametrize("version", ["1", "2", "3", "6", "10", "11", "12"])
async def test_the_state_before_an_event(world: World, version: str) -> None:
    room_id = await world.create_room(room_version=version, name="The name")
    await world.membership(room_id, BOB, "join")
    before = await world.send(room_id, "before")
    topic = await world.set_state(room_id, "m.room.topic", {"topic": "t"})
    redaction = (await world.alice.put(f"/rooms/{room_id}/redact/{quote(before, safe='')}/1", {}))["event_id"]
    expected = {
        event["event_id"]: (event["type"], event["state_key"])
        for event in await world.alice.get(f"/rooms/{room_id}/state")
    }
    traits = room_version_named(version)
    for event_id, wanted in (
        (redaction, expected),
        (topic, {key: slot for key, slot in expected.items() if slot[0] != "m.room.topic"}),
    ):
        state = await world.answer(f"/state/{room_id}", event_id=event_id)
        told = {event_id_of(pdu, traits): (pdu["type"], pdu["state_key"]) for pdu in state["pdus"]}
        assert told == wanted
        ids = await world.answer(f"/state_ids/{room_id}", event_id=event_id)
        assert set(ids["pdu_ids"]) == set(wanted)
        chain = {event_id_of(pdu, traits): pdu for pdu in state["auth_chain"]}
        assert set(ids["auth_chain_ids"]) == set(chain)
        _check_complete([*state["pdus"], *state["auth_chain"]], version)
    (pdu,) = (await world.answer(f"/event/{quote(redaction, safe='')}"))["pdus"]
    assert event_id_of(pdu, traits) == redaction
    assert (pdu["content"] if traits.redacts_in_content else pdu)["redacts"] == before


async def test_the_auth_chain_of_an_event(world: World) -> None:
    room_id = await world.create_room(room_version="11")
    await world.membership(room_id, BOB, "join")
    event_id = await world.send(room_id, "hello")
    chain = (await world.answer(f"/event_auth/{room_id}/{event_id}"))["auth_chain"]
    assert {pdu["type"] for pdu in chain} == {"m.room.create", "m.room.member", "m.room.power_levels"}
    (message,) = (await world.answer(f"/event/{event_id}"))["pdus"]
    _check_complete([message, *chain], "11")
    create_id = next(_id(pdu, "11") for pdu in chain if pdu["type"] == "m.room.create")
    assert (await world.answer(f"/event_auth/{room_id}/{create_id}")) == {"auth_chain": []}


async def test_a_large_state_comes_in_parts_and_complete(world: World) -> None:
    """Its memory is bounded by a chunk; the answer is one JSON object all the same."""
    room_id = await world.create_room(room_version="11")
    await world.membership(room_id, BOB, "join")
    crowd = [UserId(f"@user{number}:{OTHER}") for number in range(1200)]
    for begin in range(0, len(crowd), 50):
        drafts = [
            Draft(type="m.room.member", sender=user_id, state_key=user_id, content={"membership": "join"})
            for user_id in crowd[begin : begin + 50]
        ]
        await world.appender.append(room_id, lambda _, drafts=drafts: drafts)
    event_id = await world.send(room_id, "hello")
    state = await world.answer(f"/state/{room_id}", event_id=event_id)
    members = {pdu["state_key"] for pdu in state["pdus"] if pdu["type"] == "m.room.member"}
    assert members == {*crowd, BOB, world.alice.user_id}
    ids = await world.answer(f"/state_ids/{room_id}", event_id=event_id)
    assert [_id(pdu, "11") for pdu in state["pdus"]] == ids["pdu_ids"]


async def test_a_room_whose_members_are_not_all_known(world: World) -> None:
    """The servers in it are served; but not with states, for these lack members."""
    room_id = await world.create_room(room_version="11")
    event_id = await world.send(room_id, "hello")
    await world.execute(
        """INSERT INTO partial_rooms (room_nid, join_nid, servers)
           SELECT room_nid, event_nid, $2 FROM events WHERE event_id = $1""",
        event_id,
        [OTHER],
    )
    assert (await world.answer(f"/event/{event_id}"))["pdus"][0]["content"]["body"] == "hello"
    assert (await world.ask(f"/backfill/{room_id}", v=event_id, limit=5)).status == 200
    refused(await world.ask(f"/state/{room_id}", event_id=event_id), 404, "M_NOT_FOUND")
    refused(await world.ask(f"/state_ids/{room_id}", event_id=event_id), 404, "M_NOT_FOUND")
    refused(await world.ask(f"/state_ids/{room_id}", event_id=event_id, origin=THIRD), 403, "M_FORBIDDEN")


async def test_parameters_are_checked(world: World) -> None:
    refused(await world.ask("/state/!x:test"), 400, "M_MISSING_PARAM")
    refused(await world.ask("/state_ids/!x:test"), 400, "M_MISSING_PARAM")
    refused(await world.ask("/state/notaroom", event_id="$x"), 400, "M_INVALID_PARAM")
    refused(await world.ask("/state/!x:test", event_id="x"), 400, "M_INVALID_PARAM")
    refused(await world.ask("/event/x"), 400, "M_INVALID_PARAM")
    refused(await world.ask("/event_auth/!x:test/x"), 400, "M_INVALID_PARAM")


def _visibility(value: str) -> dict[str, Any]:
    content = {"history_visibility": value}
    return {"type": "m.room.history_visibility", "state_key": "", "content": content}


def _id(pdu: dict[str, Any], version: str) -> str:
    return event_id_of(pdu, room_version_named(version))


def _hash_of(pdu: dict[str, Any], _: str) -> str:
    return event_id_of(pdu, room_version_named("12"))[1:]


def _check_complete(pdus: list[dict[str, Any]], version: str) -> None:
    """Checks that the auth events of all events are there, and that each event is what its id says."""
    ids = {_id(pdu, version) for pdu in pdus}
    for pdu in pdus:
        for reference in pdu["auth_events"]:
            assert (reference if isinstance(reference, str) else reference[0]) in ids
    assert orjson.dumps(pdus)
