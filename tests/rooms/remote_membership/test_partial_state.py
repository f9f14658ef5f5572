"""Rooms that are entered without most of their members, which come later."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from homeserver.core.errors import RemoteUnavailable
from homeserver.core.ids import ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.services.remote import StateEvents
from homeserver.services.rooms import partial_completion, partial_state
from storage.database import Database
from storage.state import StateStore
from tests.api.server import Client, Site, refused
from tests.rooms.remote_membership.conftest import Serve
from tests.rooms.remote_membership.resident import DORA, ELSEWHERE, RESIDENT, Resident, join, open_room
from tests.rooms.remote_membership.test_joining import check_whole, enter, last_event
from tests.waiting import wait_until

AWAY = RemoteUnavailable("away")
LAZILY = orjson.dumps({"room": {"state": {"lazy_load_members": True}}}).decode()
MEMBERS = [UserId(f"@member{number}:{RESIDENT}") for number in range(5)]


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not complete is looked at again at once."""
    monkeypatch.setattr(partial_completion, "LOOK_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(partial_completion, "_BACKOFF_MS_MIN", 1)
    monkeypatch.setattr(partial_completion, "_BACKOFF_MS_MAX", 20)


def open_large_room(version: str = "11") -> Resident:
    """A room whose members nobody tells at first."""
    resident = open_room(version, members=len(MEMBERS))
    resident.omits_members = True
    withhold(resident)
    return resident


def withhold(resident: Resident) -> None:
    """Lets no server tell the whole state."""
    resident.refusals |= {(RESIDENT, "state"): AWAY, (ELSEWHERE, "state"): AWAY}


def release(resident: Resident, *servers: ServerName) -> None:
    """Lets servers tell the whole state."""
    for server_name in servers or (RESIDENT, ELSEWHERE):
        resident.refusals.pop((server_name, "state"), None)


async def is_partial(db: Database) -> bool:
    """Whether a room is not complete."""
    async with db.connection() as conn:
        return bool(await conn.fetchval("SELECT count(*) FROM partial_rooms"))


async def complete(db: Database) -> None:
    """Waits until all rooms are complete."""

    async def is_complete() -> bool:
        return not await is_partial(db)

    await wait_until(is_complete)


async def push(site: Site, *events: Pdu, origin: str = RESIDENT) -> dict[str, Any]:
    """Has the resident server send events; what it is told of each."""
    body = {"origin": origin, "origin_server_ts": 1, "pdus": [event.json for event in events]}
    reply = await site.ask_as(origin, "PUT", f"/_matrix/federation/v1/send/{events[0].event_id[1:9]}", body)
    assert reply.status == 200, reply.body
    return dict(reply.json["pdus"])


async def members_before(db: Database, event_id: str) -> set[str]:
    """The users whose memberships stand in the state before an event."""
    states = StateStore()
    async with db.connection() as conn:
        state_id = await conn.fetchval("SELECT state_id FROM events WHERE event_id = $1", event_id)
        slots = await states.slot_names(conn, (await states.load(conn, state_id)).entries())
    return {state_key for event_type, state_key in slots.values() if event_type == "m.room.member"}


def members_told(events: Sequence[dict[str, Any]]) -> set[str]:
    """The members among events of a state section."""
    return {event["state_key"] for event in events if event["type"] == "m.room.member"}


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
async def test_a_room_is_used_before_its_members_are_known(serve: Serve, db: Database, version: str) -> None:
    resident = open_large_room(version)
    room_id = resident.room.room_id
    async with serve(resident, faster_joins=True) as site:
        alice = await site.register("alice")
        assert (await enter(alice, room_id, RESIDENT)).status == 200
        answer = await alice.get("/sync", filter=LAZILY)
        told = answer["rooms"]["join"][room_id]
        assert members_told([*told["state"]["events"], *told["timeline"]["events"]]) == {alice.user_id}
        sent = await alice.put(f"/rooms/{room_id}/send/m.room.message/1", {"body": "hi"})
        async with db.connection() as conn:
            servers = await conn.fetchval("SELECT servers FROM partial_rooms")
        assert servers == [RESIDENT, ELSEWHERE]
        release(resident)
        await complete(db)
        expected = {alice.user_id, DORA, *MEMBERS}
        assert set((await alice.get(f"/rooms/{room_id}/joined_members"))["joined"]) == expected
        assert await members_before(db, sent["event_id"]) == expected
        await check_whole(db, room_id)
        # Who loads members lazily is not told of those who were there all the time.
        later = await alice.get("/sync", filter=LAZILY, since=answer["next_batch"])
        assert members_told(later["rooms"]["join"][room_id]["state"]["events"]) <= {alice.user_id}
        assert later["rooms"]["join"][room_id]["summary"]["m.joined_member_count"] == len(expected)


async def test_a_client_that_wants_all_members_is_told_them_when_they_are_known(serve: Serve, db: Database) -> None:
    resident = open_large_room()
    room_id = resident.room.room_id
    async with serve(resident, faster_joins=True) as site:
        alice = await site.register("alice")
        await enter(alice, room_id, RESIDENT)
        since = (await alice.get("/sync"))["next_batch"]
        release(resident)
        later = await alice.get("/sync", since=since, timeout=10_000)
        assert members_told(later["rooms"]["join"][room_id]["state"]["events"]) == {DORA, *MEMBERS}


async def test_lists_of_members_wait(serve: Serve, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_state, "_WAIT_SECONDS_MAX", 0.1)
    resident = open_large_room()
    room_id = resident.room.room_id
    async with serve(resident, faster_joins=True) as site:
        alice = await site.register("alice")
        await enter(alice, room_id, RESIDENT)
        for path in ("members", "joined_members"):
            refused(await alice.call("GET", f"/rooms/{room_id}/{path}"), 503, "M_UNKNOWN")
        bob = await site.register("bob")
        refused(await bob.call("GET", f"/rooms/{room_id}/members"), 403, "M_FORBIDDEN")
        monkeypatch.setattr(partial_state, "_WAIT_SECONDS_MAX", 20)
        release(resident)
        events = (await alice.get(f"/rooms/{room_id}/members"))["chunk"]
        assert members_told(events) == {alice.user_id, DORA, *MEMBERS}


async def test_who_wants_to_come_in_is_let_in_when_the_members_are_known(
    serve: Serve, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other servers are not sent away if it takes a moment only."""
    resident = open_large_room()
    room_id = resident.room.room_id
    path = f"/_matrix/federation/v1/make_join/{room_id}/@new:{ELSEWHERE}"
    async with serve(resident, faster_joins=True) as site:
        alice = await site.register("alice")
        await enter(alice, room_id, RESIDENT)
        monkeypatch.setattr(partial_state, "_SETTLE_SECONDS_MAX", 0.1)
        refused(await site.ask_as(ELSEWHERE, "GET", path, ver="11"), 404, "M_NOT_FOUND")
        monkeypatch.setattr(partial_state, "_SETTLE_SECONDS_MAX", 20)
        release(resident)
        assert (await site.ask_as(ELSEWHERE, "GET", path, ver="11")).status == 200


async def test_events_of_unknown_members_are_taken(serve: Serve, db: Database) -> None:
    """Before the members are known, those whom an event cites are believed."""
    resident = open_large_room()
    room_id = resident.room.room_id
    async with serve(resident, faster_joins=True) as site:
        alice = await site.register("alice")
        await enter(alice, room_id, RESIDENT)
        since = (await alice.get("/sync", filter=LAZILY))["next_batch"]
        said = resident.room.say(MEMBERS[0], "hello")
        renamed = resident.room.send(
            MEMBERS[1], "m.room.member", {"membership": "join", "displayname": "One"}, state_key=MEMBERS[1]
        )
        kick = resident.room.send(DORA, "m.room.member", {"membership": "leave"}, state_key=MEMBERS[2])
        outcome = await push(site, said, renamed, kick)
        assert outcome == {said.event_id: {}, renamed.event_id: {}, kick.event_id: {}}
        release(resident)
        await complete(db)
        everybody = {alice.user_id, DORA, *MEMBERS}
        assert await members_before(db, said.event_id) == everybody
        assert await members_before(db, kick.event_id) == everybody
        joined = (await alice.get(f"/rooms/{room_id}/joined_members"))["joined"]
        assert set(joined) == everybody - {MEMBERS[2]}
        assert joined[MEMBERS[1]]["display_name"] == "One"
        await check_whole(db, room_id)
        later = await alice.get("/sync", filter=LAZILY, since=since)
        told = later["rooms"]["join"][room_id]
        assert [event["event_id"] for event in told["timeline"]["events"]] == [
            said.event_id,
            renamed.event_id,
            kick.event_id,
        ]
        shown = members_told([*told["state"]["events"], *told["timeline"]["events"]])
        assert {MEMBERS[0], MEMBERS[1], MEMBERS[2], DORA} <= shown
        assert MEMBERS[4] not in shown


async def test_what_the_whole_state_does_not_allow_is_taken_back(serve: Serve, db: Database) -> None:
    """S11: who was banned speaks with the membership of before; once the ban is known the event is rejected."""
    resident = open_large_room()
    before = resident.room.state_after(*resident.room.extremities)
    resident.room.send(DORA, "m.room.member", {"membership": "ban"}, state_key=MEMBERS[0])
    room_id = resident.room.room_id
    async with serve(resident, faster_joins=True) as site:
        alice = await site.register("alice")
        await enter(alice, room_id, RESIDENT)
        sneaked = resident.room.draft(
            MEMBERS[0], "m.room.member", {"membership": "join", "displayname": "x"}, state_key=MEMBERS[0], cites=before
        )
        resident.room.receive(sneaked)
        assert sneaked.event_id in resident.room.rejected
        honest = resident.room.say(MEMBERS[1], "hello")
        await push(site, sneaked, honest)
        release(resident)
        await complete(db)
        async with db.connection() as conn:
            assert await conn.fetchval("SELECT rejected FROM events WHERE event_id = $1", sneaked.event_id)
            assert not await conn.fetchval("SELECT rejected FROM events WHERE event_id = $1", honest.event_id)
        shown = (await alice.get("/sync"))["rooms"]["join"][room_id]["timeline"]["events"]
        assert sneaked.event_id not in {event["event_id"] for event in shown}
        state = await alice.get(f"/rooms/{room_id}/state/m.room.member/{MEMBERS[0]}")
        assert state["membership"] == "ban"
        await check_whole(db, room_id)


async def test_a_lie_about_the_state_is_not_believed(serve: Serve, db: Database) -> None:
    """S12: what is there stays; only members come in, and an answer that is no state of the room counts for nothing."""
    resident = open_large_room()
    room_id = resident.room.room_id
    lie = resident.room.draft(DORA, "m.room.topic", {"topic": "lie"}, state_key="")
    renamed = resident.room.draft(DORA, "m.room.name", {"name": "lie"}, state_key="")
    answers: list[Any] = [
        lambda answer: StateEvents([], []),
        lambda answer: StateEvents(
            [*(event for event in answer.pdus if event["type"] != "m.room.name"), lie.json, renamed.json],
            answer.auth_chain,
        ),
    ]
    resident.state_answer = lambda answer: (answers.pop(0) if answers else lambda value: value)(answer)
    async with serve(resident, faster_joins=True) as site:
        alice = await site.register("alice")
        await enter(alice, room_id, RESIDENT)
        release(resident)
        await complete(db)
        assert (await alice.get(f"/rooms/{room_id}/state/m.room.name/"))["name"] == "Dora's"
        refused(await alice.call("GET", f"/rooms/{room_id}/state/m.room.topic/"), 404, "M_NOT_FOUND")
        assert set((await alice.get(f"/rooms/{room_id}/joined_members"))["joined"]) == {alice.user_id, DORA, *MEMBERS}
        await check_whole(db, room_id)


async def test_other_servers_are_asked_when_the_first_is_away(serve: Serve, db: Database) -> None:
    resident = open_large_room()
    async with serve(resident, faster_joins=True) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id, RESIDENT)
        release(resident, ELSEWHERE)
        await complete(db)
        await check_whole(db, resident.room.room_id)


async def test_a_room_that_everybody_has_left_is_not_completed(serve: Serve, db: Database) -> None:
    resident = open_large_room()
    async with serve(resident, faster_joins=True) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id, RESIDENT)
        await alice.post(f"/rooms/{resident.room.room_id}/leave")
        await complete(db)
        # Once more, to a room that now tells its members.
        resident.room.receive(await last_event(db))
        release(resident)
        assert (await enter(alice, resident.room.room_id, RESIDENT)).status == 200
        await complete(db)
        await check_whole(db, resident.room.room_id)


async def test_our_own_members_stay_what_they_are(serve: Serve, db: Database) -> None:
    """Bob was invited; whether the room knows of it is only known when it is whole."""
    resident = open_large_room()
    room_id = resident.room.room_id
    invitation = resident.room.send(DORA, "m.room.member", {"membership": "invite"}, state_key="@bob:test")
    lie = resident.room.draft(DORA, "m.room.member", {"membership": "invite"}, state_key="@carol:test")
    async with serve(resident, faster_joins=True) as site:
        alice, bob, carol = [await site.register(name) for name in ("alice", "bob", "carol")]
        for pdu in (invitation, lie):
            reply = await site.ask_as(
                RESIDENT,
                "PUT",
                f"/_matrix/federation/v2/invite/{room_id}/{pdu.event_id}",
                {"room_version": "11", "event": pdu.json, "invite_room_state": []},
            )
            assert reply.status == 200, reply.body
        await enter(alice, room_id, RESIDENT)
        release(resident)
        await complete(db)
        assert await _sections(bob) == {"invite"}
        assert await _sections(carol) == set()
        await check_whole(db, room_id)


async def _sections(client: Client) -> set[str]:
    return set((await client.get("/sync")).get("rooms", {}))


async def test_servers_that_omit_nothing_are_right_too(serve: Serve, db: Database) -> None:
    resident = open_room(members=3)
    async with serve(resident, faster_joins=True) as site:
        await enter(await site.register("alice"), resident.room.room_id, RESIDENT)
        assert not await is_partial(db)
        await check_whole(db, resident.room.room_id)


async def test_members_that_are_told_nevertheless_are_not_lost(serve: Serve, db: Database) -> None:
    """The answer has the members by whom the room is named, as the specification asks for."""
    resident = open_large_room()
    hero = resident.room.current("m.room.member", MEMBERS[3])
    assert hero is not None
    resident.answer = lambda answer: replace(answer, state=[*answer.state, hero.json])
    async with serve(resident, faster_joins=True) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id, RESIDENT)
        assert (await alice.get(f"/rooms/{resident.room.room_id}/state/m.room.member/{MEMBERS[3]}"))["membership"]
        release(resident)
        await complete(db)
        await check_whole(db, resident.room.room_id)


async def test_a_second_user_comes_in_while_the_room_is_not_whole(serve: Serve, db: Database) -> None:
    resident = open_large_room()
    async with serve(resident, faster_joins=True) as site:
        alice, bob = await site.register("alice"), await site.register("bob")
        await enter(alice, resident.room.room_id, RESIDENT)
        assert (await enter(bob, resident.room.room_id)).status == 200
        join(resident.room, UserId(f"@new:{RESIDENT}"))
        release(resident)
        await complete(db)
        await check_whole(db, resident.room.room_id)
        members = set((await bob.get(f"/rooms/{resident.room.room_id}/joined_members"))["joined"])
        assert members == {alice.user_id, bob.user_id, DORA, *MEMBERS}
