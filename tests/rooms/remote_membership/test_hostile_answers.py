"""Other servers that lie to who wants to join: nothing of it is believed, and nothing is broken by it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from homeserver.core.ids import EventId, UserId
from homeserver.services.remote import SentJoin
from homeserver.services.rooms import claimed_state
from storage.database import Database
from tests.api.server import Site, refused
from tests.rooms.remote_membership.conftest import Serve
from tests.rooms.remote_membership.resident import (
    DORA,
    ELSEWHERE,
    ELSEWHERE_KEY,
    EMIL,
    RESIDENT,
    Resident,
    join,
    open_room,
    unchanged,
    with_state,
)
from tests.rooms.remote_membership.test_joining import check_whole, enter

Template = dict[str, Any]
OTHER_ROOM = "!other:resident.example"


async def check_refused(serve: Serve, db: Database, resident: Resident) -> None:
    """Alice does not get in, nobody is told anything, and she gets in when the other server has come to its senses."""
    async with serve(resident) as site:
        alice = await site.register("alice")
        since = (await alice.get("/sync"))["next_batch"]
        refused(await enter(alice, resident.room.room_id, RESIDENT), 502, "M_UNKNOWN")
        assert "rooms" not in await alice.get("/sync", since=since)
        async with db.connection() as conn:
            assert not await conn.fetchval("SELECT count(*) FROM events WHERE position IS NOT NULL")
            assert not await conn.fetchval("SELECT count(*) FROM rooms WHERE state_id IS NOT NULL")
        resident.template, resident.answer = unchanged, unchanged
        assert (await enter(alice, resident.room.room_id, RESIDENT)).status == 200
        await check_whole(db, resident.room.room_id)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "m.room.power_levels"},
        {"room_id": OTHER_ROOM},
        {"sender": "@bob:test"},
        {"state_key": "@bob:test"},
        {"content": {"membership": "leave"}},
        {"content": None},
        {"depth": 2**53},
        {"depth": "7"},
        {"depth": None},
        {"prev_events": []},
        {"prev_events": ["$a"] * 21},
        {"prev_events": [7]},
        {"auth_events": "$a"},
        {"auth_events": ["$a"] * 11},
    ],
    ids=lambda change: next(iter(change.items())).__repr__()[:30],
)
async def test_templates_for_something_else_are_not_signed(serve: Serve, change: Mapping[str, Any]) -> None:
    """S8: whatever a template says, nothing is signed but a join of the user to the room."""
    resident = open_room()
    resident.template = lambda event: {**event, **change}
    async with serve(resident) as site:
        alice = await site.register("alice")
        refused(await enter(alice, resident.room.room_id, RESIDENT), 502, "M_UNKNOWN")
    assert not resident.sent


async def test_only_what_is_needed_is_taken_from_a_template(serve: Serve) -> None:
    """S8: further members and further content of a template are not signed."""
    resident = open_room()

    def add(event: Template) -> Template:
        content = {**event["content"], "displayname": "Mallory", "third_party_invite": {}, "is_direct": True}
        return {**event, "content": content, "origin_server_ts": 5, "redacts": "$a", "unsigned": {}, "origin": "b"}

    resident.template = add
    async with serve(resident) as site:
        alice = await site.register("alice")
        assert (await enter(alice, resident.room.room_id, RESIDENT)).status == 200
    (sent,) = resident.sent
    assert sent.content == {"membership": "join", "displayname": "alice"}
    assert sent.origin_server_ts > 5
    assert sent.json["origin"] == sent.sender.server_name
    assert not {"redacts", "unsigned"} & sent.json.keys()


def without(event_type: str) -> Callable[[SentJoin], SentJoin]:
    """Takes all events of a type out of an answer."""

    def change(answer: SentJoin) -> SentJoin:
        return replace(
            answer,
            state=[event for event in answer.state if event["type"] != event_type],
            auth_chain=[event for event in answer.auth_chain if event["type"] != event_type],
        )

    return change


@pytest.mark.parametrize("version", ["1", "11", "12"])
@pytest.mark.parametrize("event_type", ["m.room.create", "m.room.join_rules"])
async def test_a_state_without_what_the_join_needs(serve: Serve, db: Database, version: str, event_type: str) -> None:
    """S10, S12: a state in which our join is not allowed is no state to begin with."""
    resident = open_room(version)
    resident.answer = without(event_type)
    await check_refused(serve, db, resident)


async def test_events_of_another_room(serve: Serve, db: Database) -> None:
    """S1, S10: the state of another room does not become the state of this one."""
    resident, other = open_room(), open_room()
    state = [pdu.json for pdu in other.room.pdus(other.room.current_state).values()]
    resident.answer = lambda answer: replace(answer, state=state, auth_chain=state)
    await check_refused(serve, db, resident)


@pytest.mark.parametrize("place", ["state", "auth_chain"])
async def test_two_create_events(serve: Serve, db: Database, place: str) -> None:
    """S10: there is one create event, in the state and in all auth chains."""
    resident = open_room("6")
    created = resident.room.current("m.room.create")
    assert created is not None
    second = resident.room.forge({**created.json, "origin_server_ts": 7})
    if place == "state":
        resident.answer = lambda answer: replace(answer, state=[*answer.state, second])
    else:
        resident.answer = lambda answer: replace(answer, auth_chain=[*answer.auth_chain, second])
    await check_refused(serve, db, resident)


async def test_two_events_for_one_slot(serve: Serve, db: Database) -> None:
    resident = open_room()
    old = resident.room.current("m.room.name")
    resident.room.send(DORA, "m.room.name", {"name": "New"}, state_key="")
    assert old is not None
    resident.answer = lambda answer: with_state(answer, old.json)
    await check_refused(serve, db, resident)


async def test_events_that_are_no_state(serve: Serve, db: Database) -> None:
    resident = open_room()
    message = resident.room.say(DORA, "hello")
    resident.answer = lambda answer: with_state(answer, message.json)
    await check_refused(serve, db, resident)


async def test_another_version_than_the_create_event_names(serve: Serve, db: Database) -> None:
    resident = open_room("10")
    created = resident.room.current("m.room.create")
    assert created is not None
    content = {"room_version": "9", "creator": DORA}
    forged = resident.room.forge({**created.json, "content": content})

    def change(answer: SentJoin) -> SentJoin:
        state = [forged if event["type"] == "m.room.create" else event for event in answer.state]
        return replace(answer, state=state)

    resident.answer = change
    await check_refused(serve, db, resident)


async def test_another_event_in_place_of_our_join(serve: Serve, db: Database) -> None:
    """S1: the join comes back with a signature more, not as another event."""
    resident = open_room()
    resident.answer = lambda answer: replace(answer, event={**(answer.event or {}), "depth": 1})
    await check_refused(serve, db, resident)


async def test_giant_answers(serve: Serve, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """S4: there is a limit to how many events are looked at."""
    resident = open_room()
    resident.answer = lambda answer: replace(answer, auth_chain=[{}] * 2000)
    monkeypatch.setattr(claimed_state, "EVENTS_MAX", 1000)
    await check_refused(serve, db, resident)


async def _member_ids(site: Site, resident: Resident) -> set[str]:
    alice = await site.register("alice")
    assert (await enter(alice, resident.room.room_id, RESIDENT)).status == 200
    return set((await alice.get(f"/rooms/{resident.room.room_id}/joined_members"))["joined"])


async def test_members_with_wrong_signatures_are_left_out(serve: Serve, db: Database) -> None:
    """S6: one forged member does not keep us out of the room, and is not in there."""
    resident = open_room()
    join(resident.room, EMIL)
    mallory, eve = UserId(f"@mallory:{ELSEWHERE}"), UserId(f"@eve:{ELSEWHERE}")
    # Signed by the resident server alone; and with a signature that is none.
    join(resident.room, mallory)
    forged = join(resident.room, eve)
    signatures = {ELSEWHERE: {ELSEWHERE_KEY.key_id: ELSEWHERE_KEY.sign(b"something else")}}

    def change(answer: SentJoin) -> SentJoin:
        state = [
            {**event, "signatures": signatures} if event["sender"] == forged.sender else event for event in answer.state
        ]
        return replace(answer, state=state)

    resident.answer = change
    async with serve(resident) as site:
        assert await _member_ids(site, resident) == {"@alice:test", DORA, EMIL}
        await check_whole(db, resident.room.room_id)


async def test_events_that_their_auth_events_do_not_allow_are_left_out(serve: Serve, db: Database) -> None:
    """S11: what is rejected stays out of the state."""
    resident = open_room()
    join(resident.room, EMIL)
    rejected = resident.room.draft(EMIL, "m.room.topic", {"topic": "Emil's"}, state_key="")
    resident.answer = lambda answer: with_state(answer, rejected.json)
    async with serve(resident) as site:
        assert EMIL in await _member_ids(site, resident)
        await check_whole(db, resident.room.room_id)
    async with db.connection() as conn:
        (row,) = await conn.fetch("SELECT rejected, event_nid FROM events WHERE event_id = $1", rejected.event_id)
        assert row["rejected"] is not None
        assert not await conn.fetchval("SELECT count(*) FROM current_state WHERE event_nid = $1", row["event_nid"])


async def test_events_whose_auth_events_are_unknown_are_left_out(serve: Serve, db: Database) -> None:
    """S10: nothing is taken on trust because what it rests on is not shown."""
    resident = open_room()
    join(resident.room, EMIL)
    topic = resident.room.draft(DORA, "m.room.topic", {"topic": "Dora's"}, state_key="")
    unfounded = resident.room.forge({**topic.json, "auth_events": [*topic.auth_events[:-1], "$" + "a" * 43]})
    resident.answer = lambda answer: with_state(answer, unfounded)
    async with serve(resident) as site:
        await _member_ids(site, resident)
        await check_whole(db, resident.room.room_id)
    async with db.connection() as conn:
        assert not await conn.fetchval("SELECT count(*) FROM events WHERE type = 'm.room.topic'")


async def test_events_that_cite_each_other_in_a_circle_are_left_out(serve: Serve, db: Database) -> None:
    """S14: ids are free to choose in version 1, so auth events can form a circle."""
    resident = open_room("1")
    one = resident.room.draft(DORA, "m.room.topic", {"topic": "one"}, state_key="")
    other = resident.room.draft(DORA, "m.room.avatar", {"url": "mxc://a/b"}, state_key="")
    pair = [
        resident.room.forge({**mine.json, "auth_events": [*mine.json["auth_events"], _cited(yours.event_id)]})
        for mine, yours in ((one, other), (other, one))
    ]
    resident.answer = lambda answer: with_state(answer, *pair)
    async with serve(resident) as site:
        await _member_ids(site, resident)
        await check_whole(db, resident.room.room_id)
    async with db.connection() as conn:
        assert not await conn.fetchval("SELECT count(*) FROM events WHERE type IN ('m.room.topic', 'm.room.avatar')")


def _cited(event_id: EventId) -> list[Any]:
    return [event_id, {"sha256": "x"}]


async def test_a_wrong_answer_does_not_keep_a_better_one_away(serve: Serve, db: Database) -> None:
    resident = open_room()
    answers: list[Callable[[SentJoin], SentJoin]] = [without("m.room.create"), unchanged]
    resident.answer = lambda answer: answers.pop(0)(answer)
    async with serve(resident) as site:
        alice = await site.register("alice")
        assert (await enter(alice, resident.room.room_id, ELSEWHERE, RESIDENT)).status == 200
        await check_whole(db, resident.room.room_id)


async def test_a_room_that_was_named_with_a_wrong_version_before(serve: Serve, db: Database) -> None:
    """Whoever invites first cannot keep others out of the room by lying about its version."""
    resident = open_room("11")
    async with serve(resident) as site:
        async with db.connection() as conn:
            await conn.execute(
                "WITH room AS (INSERT INTO rooms (room_id, room_version) VALUES ($1, '1') RETURNING room_nid) "
                "INSERT INTO room_summaries (room_nid) SELECT room_nid FROM room",
                resident.room.room_id,
            )
        await _member_ids(site, resident)
        await check_whole(db, resident.room.room_id)
