"""History for other servers: backfill, missing events, events by their time."""

from typing import Any

import pytest

from homeserver.core.hashing import event_id_of
from homeserver.core.room_versions import room_version_named
from tests.api.server import refused
from tests.federation.reading.world import BEN, BOB, OTHER, World, bodies

V11 = room_version_named("11")


async def _room_with_messages(world: World, *texts: str) -> tuple[str, list[str]]:
    """A room that Bob is in, and messages in it."""
    room_id = await world.create_room(room_version="11")
    await world.membership(room_id, BOB, "join")
    return room_id, [await world.send(room_id, text) for text in texts]


def _ids(pdus: list[Any]) -> list[str]:
    return [event_id_of(pdu, V11) for pdu in pdus]


async def test_backfill(world: World) -> None:
    room_id, messages = await _room_with_messages(world, "1", "2", "3", "4")
    answer = await world.answer(f"/backfill/{room_id}", v=messages[2], limit=2)
    assert answer["origin"] == "test"
    assert isinstance(answer["origin_server_ts"], int)
    assert _ids(answer["pdus"]) == [messages[2], messages[1]]
    answer = await world.answer(f"/backfill/{room_id}", v=[messages[3], messages[1]], limit=100)
    told = _ids(answer["pdus"])
    assert told[:2] in ([messages[3], messages[1]], [messages[1], messages[3]])
    assert len(told) == len(set(told))
    assert answer["pdus"][-1]["type"] == "m.room.create"
    assert (await world.answer(f"/backfill/{room_id}", v="$nowhere", limit=10))["pdus"] == []
    assert (await world.answer(f"/backfill/{room_id}", v=messages[3], limit=0))["pdus"] == []


async def test_backfill_goes_only_along_the_graph_and_breadth_first(world: World) -> None:
    """What is told is connected to what was asked for: each event is followed by one that was told before."""
    room_id, messages = await _room_with_messages(world, *(str(number) for number in range(30)))
    # A fork that nothing follows is not among the past of the last message.
    pdus = (await world.answer(f"/backfill/{room_id}", v=messages[-1], limit=20))["pdus"]
    assert len(pdus) == 20
    told = {messages[-1]}
    for pdu in pdus:
        assert event_id_of(pdu, V11) in told
        told.update(pdu["prev_events"])


async def test_backfill_has_a_bound(world: World) -> None:
    room_id, messages = await _room_with_messages(world, *(str(number) for number in range(110)))
    answer = await world.answer(f"/backfill/{room_id}", v=messages[-1], limit=10**6)
    assert len(answer["pdus"]) == 100


@pytest.mark.parametrize(
    ("visibility", "told"),
    [
        ("joined", ["-", "-", "in", "-", "back"]),
        ("invited", ["-", "invited", "in", "-", "back"]),
        ("shared", ["before", "invited", "in", "away", "back"]),
        ("world_readable", ["before", "invited", "in", "away", "back"]),
    ],
)
async def test_what_the_server_may_not_see_is_redacted(world: World, visibility: str, told: list[str]) -> None:
    """S19, S20, in both ways of reading history."""
    room_id = await world.create_room(
        room_version="11",
        initial_state=[
            {
                "type": "m.room.history_visibility",
                "state_key": "",
                "content": {"history_visibility": visibility},
            }
        ],
    )
    await world.send(room_id, "before")
    await world.membership(room_id, BOB, "invite", sender=world.alice_id)
    await world.send(room_id, "invited")
    await world.membership(room_id, BOB, "join")
    await world.send(room_id, "in")
    await world.membership(room_id, BOB, "leave")
    await world.send(room_id, "away")
    await world.membership(room_id, BEN, "join")
    last = await world.send(room_id, "back")
    pdus = (await world.answer(f"/backfill/{room_id}", v=last, limit=100))["pdus"]
    assert bodies(pdus)[::-1] == told
    # Redacted or not, each is the event that it is.
    assert _ids(pdus)[0] == last
    assert {reference for pdu in pdus for reference in pdu["prev_events"]} <= set(_ids(pdus))
    body: dict[str, Any] = {"earliest_events": [], "latest_events": [last], "limit": 20}
    events = (await world.post(f"/get_missing_events/{room_id}", body)).json["events"]
    assert bodies(events) == told[:-1]


async def test_missing_events(world: World) -> None:
    room_id, messages = await _room_with_messages(world, "1", "2", "3", "4", "5")
    body: dict[str, Any] = {"earliest_events": [messages[0]], "latest_events": [messages[4]]}
    reply = await world.post(f"/get_missing_events/{room_id}", body)
    assert _ids(reply.json["events"]) == messages[1:4]
    reply = await world.post(f"/get_missing_events/{room_id}", {**body, "limit": 2})
    assert _ids(reply.json["events"]) == messages[2:4]
    depth = reply.json["events"][-1]["depth"]
    reply = await world.post(f"/get_missing_events/{room_id}", {**body, "min_depth": depth})
    assert _ids(reply.json["events"]) == [messages[3]]
    reply = await world.post(f"/get_missing_events/{room_id}", {**body, "latest_events": ["$nowhere"]})
    assert reply.json == {"events": []}
    reply = await world.post(f"/get_missing_events/{room_id}", {**body, "earliest_events": [messages[4]]})
    assert reply.json == {"events": []}


async def test_missing_events_have_a_bound(world: World) -> None:
    room_id, messages = await _room_with_messages(world, *(str(number) for number in range(30)))
    body: dict[str, Any] = {"earliest_events": [], "latest_events": [messages[-1]]}
    assert len((await world.post(f"/get_missing_events/{room_id}", body)).json["events"]) == 10
    body["limit"] = 1000
    events = (await world.post(f"/get_missing_events/{room_id}", body)).json["events"]
    assert _ids(events) == messages[9:29]


async def test_soft_failed_events_are_told_only_where_the_graph_leads_to_them(world: World) -> None:
    """S23."""
    room_id, messages = await _room_with_messages(world, "1", "2", "3")
    await world.execute("UPDATE events SET soft_failed = true, topological = NULL WHERE event_id = $1", messages[1])
    pdus = (await world.answer(f"/backfill/{room_id}", v=messages[2], limit=3))["pdus"]
    assert _ids(pdus) == messages[::-1]
    pdus = (await world.answer(f"/backfill/{room_id}", v=messages[0], limit=3))["pdus"]
    assert messages[1] not in _ids(pdus)


async def test_a_run_of_rejected_events_does_not_end_the_history(world: World) -> None:
    """S37: they are passed over, and what precedes them is told."""
    room_id, messages = await _room_with_messages(world, *(str(number) for number in range(40)))
    await world.execute(
        "UPDATE events SET rejected = 'test', topological = NULL WHERE event_id = ANY ($1)", messages[5:39]
    )
    pdus = (await world.answer(f"/backfill/{room_id}", v=messages[39], limit=3))["pdus"]
    assert _ids(pdus) == [messages[39], messages[4], messages[3]]
    body: dict[str, Any] = {"earliest_events": [], "latest_events": [messages[39]], "limit": 2}
    assert _ids((await world.post(f"/get_missing_events/{room_id}", body)).json["events"]) == messages[3:5]


async def test_a_walk_does_not_leave_the_room(world: World) -> None:
    """S1: an event that claims to follow one of another room leads nowhere."""
    elsewhere = await world.create_room(room_version="11")
    secret = await world.send(elsewhere, "secret")
    room_id, messages = await _room_with_messages(world, "1", "2")
    await world.execute(
        """UPDATE events SET prev_event_nids = prev_event_nids
               || (SELECT event_nid FROM events e WHERE e.event_id = $2),
           auth_event_nids = auth_event_nids || (SELECT event_nid FROM events e WHERE e.event_id = $2)
           WHERE event_id = $1""",
        messages[1],
        secret,
    )
    replies = [
        await world.ask(f"/backfill/{room_id}", v=messages[1], limit=100),
        await world.post(f"/get_missing_events/{room_id}", {"earliest_events": [], "latest_events": [messages[1]]}),
        await world.ask(f"/event_auth/{room_id}/{messages[1]}"),
    ]
    for reply in replies:
        assert reply.status == 200
        assert b"secret" not in reply.body


@pytest.mark.parametrize("version", ["1", "4", "12"])
async def test_all_room_versions(world: World, version: str) -> None:
    room_id = await world.create_room(room_version=version)
    await world.membership(room_id, BOB, "join")
    last = await world.send(room_id, "hello")
    pdus = (await world.answer(f"/backfill/{room_id}", v=last, limit=100))["pdus"]
    traits = room_version_named(version)
    assert event_id_of(pdus[0], traits) == last
    assert ("event_id" in pdus[0]) is (version == "1")
    assert pdus[-1]["type"] == "m.room.create"
    assert ("room_id" in pdus[-1]) is (version != "12")


async def test_events_by_their_time(world: World) -> None:
    """S19: not even the time is told of what the server may not see."""
    room_id = await world.create_room(
        room_version="11",
        initial_state=[
            {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}
        ],
    )
    await world.send(room_id, "hidden")
    join = await world.membership(room_id, BOB, "join")
    seen = await world.send(room_id, "seen")
    pdus = (await world.answer(f"/backfill/{room_id}", v=seen, limit=100))["pdus"]
    (hidden_ts,) = (pdu["origin_server_ts"] for pdu in pdus if pdu["type"] == "m.room.message" and not pdu["content"])
    for direction, ts, found in (("f", hidden_ts, join), ("b", 2**53 - 1, seen)):
        answer = await world.answer(f"/timestamp_to_event/{room_id}", ts=ts, dir=direction)
        assert answer["event_id"] == found
        (pdu,) = (await world.answer(f"/event/{found}"))["pdus"]
        assert answer["origin_server_ts"] == pdu["origin_server_ts"]
    refused(await world.ask(f"/timestamp_to_event/{room_id}", ts=0, dir="b"), 404, "M_NOT_FOUND")
    refused(await world.ask(f"/timestamp_to_event/{room_id}", ts=2**53 - 1, dir="f"), 404, "M_NOT_FOUND")


async def test_parameters_are_checked(world: World) -> None:
    room_id, messages = await _room_with_messages(world, "1")
    for query, errcode in (
        ({"limit": 3}, "M_MISSING_PARAM"),
        ({"v": messages[0]}, "M_MISSING_PARAM"),
        ({"v": "x", "limit": 3}, "M_INVALID_PARAM"),
        ({"v": messages[0], "limit": "x"}, "M_INVALID_PARAM"),
        ({"v": messages[0], "limit": -1}, "M_INVALID_PARAM"),
        ({"v": [f"$e{number}" for number in range(101)], "limit": 3}, "M_INVALID_PARAM"),
    ):
        refused(await world.ask(f"/backfill/{room_id}", **query), 400, errcode)
    incomplete: list[dict[str, Any]] = [{}, {"earliest_events": []}]
    for body in incomplete:
        refused(await world.post(f"/get_missing_events/{room_id}", body), 400, "M_MISSING_PARAM")
    wrong = {"earliest_events": "x", "latest_events": []}
    refused(await world.post(f"/get_missing_events/{room_id}", wrong), 400, "M_BAD_JSON")
    bad = {"earliest_events": ["x"], "latest_events": []}
    refused(await world.post(f"/get_missing_events/{room_id}", bad), 400, "M_INVALID_PARAM")
    for query, errcode in (
        ({"dir": "f"}, "M_MISSING_PARAM"),
        ({"ts": 1}, "M_MISSING_PARAM"),
        ({"ts": 1, "dir": "x"}, "M_INVALID_PARAM"),
        ({"ts": "x", "dir": "f"}, "M_INVALID_PARAM"),
    ):
        refused(await world.ask(f"/timestamp_to_event/{room_id}", **query), 400, errcode)
    assert (await world.ask("/backfill/nowhere", v=messages[0], limit=1, origin=OTHER)).status == 400
