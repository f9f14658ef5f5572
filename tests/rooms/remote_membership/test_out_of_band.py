"""Invitations, knocks and their ends in rooms that our server is not in."""

from collections.abc import Sequence
from typing import Any

import pytest

from homeserver.core.errors import Forbidden, RemoteUnavailable
from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.services.rooms.out_of_band import OutOfBandMemberships, ServerIsInRoom
from homeserver.services.rooms.rescinded_invites import RescindedInvites
from storage.bus.memory import MemoryBus
from storage.database import Database
from storage.rooms import get_room
from tests.api.server import SERVER_NAME, Client, refused
from tests.rooms.remote_membership.conftest import Serve
from tests.rooms.remote_membership.resident import (
    DORA,
    ELSEWHERE,
    EMIL,
    RESIDENT,
    Resident,
    join,
    open_room,
    with_state,
)
from tests.rooms.remote_membership.resident import refused as refused_by_them
from tests.rooms.remote_membership.test_joining import check_whole, enter
from tests.rooms.workers import NoPush

ALICE = UserId("@alice:test")


def out_of_band(db: Database) -> OutOfBandMemberships:
    """What records such memberships."""
    return OutOfBandMemberships(db=db, bus=MemoryBus(), server_name=ServerName(SERVER_NAME), push=NoPush())


async def invite(db: Database, resident: Resident, *, stripped_state: Sequence[Any] | None = None) -> Pdu:
    """Has Alice invited by Dora."""
    invitation = resident.room.send(DORA, "m.room.member", {"membership": "invite"}, state_key=ALICE)
    state = [{**event, "unsigned": {"age": 5}} for event in resident.room.stripped_state()]
    told = state if stripped_state is None else stripped_state
    await out_of_band(db).record(invitation, stripped_state=told, servers=[RESIDENT])
    return invitation


async def sections(client: Client, since: str | None = None) -> dict[str, Any]:
    """The rooms that a client is told."""
    answer = await client.get("/sync", **({} if since is None else {"since": since}))
    return dict(answer.get("rooms", {}))


def types(events: Sequence[dict[str, Any]]) -> list[str]:
    """The types of events."""
    return [event["type"] for event in events]


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
async def test_an_invitation_is_told_and_accepted(serve: Serve, db: Database, version: str) -> None:
    resident = open_room(version, join_rule="invite")
    room_id = resident.room.room_id
    async with serve(resident) as site:
        alice = await site.register("alice")
        since = (await alice.get("/sync"))["next_batch"]
        await invite(db, resident)
        for told in (await sections(alice, since), await sections(alice)):
            events = told["invite"][room_id]["invite_state"]["events"]
            assert {"m.room.create", "m.room.name", "m.room.join_rules"} < set(types(events))
            assert all(event.keys() == {"type", "state_key", "sender", "content"} for event in events)
            assert events[-1]["content"]["membership"] == "invite"
        # The inviting server is asked, though nobody has named it.
        assert (await alice.call("POST", f"/rooms/{room_id}/join", {})).status == 200
        assert room_id in (await sections(alice, since))["join"]
        await check_whole(db, room_id)
    async with db.connection() as conn:
        assert not await conn.fetchval("SELECT count(*) FROM invited_states"), "nobody needs it any more"


async def test_an_invitation_is_recorded_once(db: Database) -> None:
    """Who has rejected an invitation is not invited by the same event again."""
    resident = open_room()
    invitation = await invite(db, resident)
    leave = resident.room.draft(DORA, "m.room.member", {"membership": "leave"}, state_key=ALICE)
    assert await out_of_band(db).record(leave) is not None
    assert await out_of_band(db).record(invitation) is None
    async with db.connection() as conn:
        assert await conn.fetchval("SELECT membership FROM memberships") == "leave"


async def test_stripped_state_is_cut_to_what_is_well_formed_and_not_too_much(serve: Serve, db: Database) -> None:
    """S4, S5: one malformed event is left out, and neither it nor too many of them spoil the sync."""
    resident = open_room()
    good = resident.room.stripped_state()
    bad: list[Any] = [
        {},
        {"type": "m.room.name"},
        {**good[0], "content": []},
        {**good[0], "sender": "nobody"},
        {**good[0], "state_key": 7},
        {**good[0], "type": "a\0b"},
        {**good[0], "content": {"huge": 10**300}},
        {"type": "m.room.topic", "state_key": "", "sender": DORA, "content": {"topic": "x" * 70_000}},
    ]
    async with serve(resident) as site:
        alice = await site.register("alice")
        await invite(db, resident, stripped_state=[*bad, *good])
        events = (await sections(alice))["invite"][resident.room.room_id]["invite_state"]["events"]
        assert len(events) <= len(good) + 2
        assert types(events)[-1] == "m.room.member"
        assert set(types(good)) <= set(types(events))


async def test_another_servers_idea_of_our_user_is_not_shown(serve: Serve, db: Database) -> None:
    """S5: of its own membership the user is told what the signed event says."""
    resident = open_room()
    lie = {"type": "m.room.member", "state_key": ALICE, "sender": ALICE, "content": {"membership": "join"}}
    async with serve(resident) as site:
        alice = await site.register("alice")
        await invite(db, resident, stripped_state=[lie])
        events = (await sections(alice))["invite"][resident.room.room_id]["invite_state"]["events"]
        assert [event["content"]["membership"] for event in events] == ["invite"]


async def test_an_invitation_is_rejected_with_the_other_servers_help(serve: Serve, db: Database) -> None:
    resident = open_room(join_rule="invite")
    room_id = resident.room.room_id
    async with serve(resident) as site:
        alice = await site.register("alice")
        await invite(db, resident)
        since = (await alice.get("/sync"))["next_batch"]
        await alice.post(f"/rooms/{room_id}/leave", {"reason": "no"})
        told = await sections(alice, since)
        assert told.keys() == {"leave"}
        (event,) = told["leave"][room_id]["timeline"]["events"]
        assert event["content"] == {"membership": "leave", "reason": "no"}
        assert resident.room.membership(ALICE) == "leave"
        # Once more changes nothing.
        await alice.post(f"/rooms/{room_id}/leave")
        assert len(resident.sent) == 1
        await alice.post(f"/rooms/{room_id}/forget")
        assert "leave" not in await sections(alice, since)


@pytest.mark.parametrize("version", ["1", "12"])
@pytest.mark.parametrize("failure", [RemoteUnavailable("away"), refused_by_them("M_FORBIDDEN")])
async def test_an_invitation_is_rejected_without_help(
    serve: Serve, db: Database, version: str, failure: Exception
) -> None:
    """If nobody helps, the user is rid of it all the same."""
    resident = open_room(version, join_rule="invite")
    resident.refusals[(RESIDENT, "make_leave")] = failure
    room_id = resident.room.room_id
    async with serve(resident) as site:
        alice = await site.register("alice")
        await invite(db, resident)
        since = (await alice.get("/sync"))["next_batch"]
        await alice.post(f"/rooms/{room_id}/leave")
        assert (await sections(alice, since)).keys() == {"leave"}
        assert await sections(alice) == {}
    assert resident.room.membership(ALICE) == "invite", "the other server does not know"


async def test_templates_of_leaves_are_not_signed_as_they_come(serve: Serve, db: Database) -> None:
    """S8: asked for a leave, a server cannot have a join, or somebody else's leave, signed."""
    resident = open_room(join_rule="invite")
    resident.template = lambda event: {**event, "content": {"membership": "join"}}
    async with serve(resident) as site:
        alice = await site.register("alice")
        await invite(db, resident)
        await alice.post(f"/rooms/{resident.room.room_id}/leave")
    assert not resident.sent


async def test_who_is_not_invited_cannot_leave(serve: Serve) -> None:
    resident = open_room()
    async with serve(resident) as site:
        alice = await site.register("alice")
        refused(await alice.call("POST", f"/rooms/{resident.room.room_id}/leave", {}), 403, "M_FORBIDDEN")
    assert not resident.asked


@pytest.mark.parametrize("version", ["7", "11", "12"])
async def test_knocking(serve: Serve, db: Database, version: str) -> None:
    resident = open_room(version, join_rule="knock")
    room_id = resident.room.room_id
    async with serve(resident) as site:
        alice = await site.register("alice")
        since = (await alice.get("/sync"))["next_batch"]
        reply = await alice.call("POST", f"/knock/{room_id}", {"reason": "please"}, via=[RESIDENT])
        assert reply.json == {"room_id": room_id}
        told = (await sections(alice, since))["knock"][room_id]["knock_state"]["events"]
        assert types(told) == ["m.room.create", "m.room.join_rules", "m.room.name", "m.room.member"]
        assert told[-1]["content"]["membership"] == "knock"
        assert told[-1]["content"]["reason"] == "please"
        assert resident.room.membership(ALICE) == "knock"
        # The server through which she knocked is asked again.
        await alice.post(f"/rooms/{room_id}/leave")
        assert resident.room.membership(ALICE) == "leave"


async def test_what_is_told_to_who_knocks_must_be_signed(serve: Serve) -> None:
    """S6: whole events that nobody has signed are left out; from version 12 on there are no others."""
    resident = open_room("12", join_rule="knock")
    name = resident.room.current("m.room.name")
    assert name is not None
    forged = {**name.json, "content": {"name": "Mallory's"}}
    unsigned = {**name.json, "signatures": {}}
    stripped = {"type": "m.room.topic", "state_key": "", "sender": DORA, "content": {"topic": "x"}}
    resident.room_state = [name.json, unsigned, stripped, forged, {"signatures": 1}, 7]  # type: ignore[list-item]
    async with serve(resident) as site:
        alice = await site.register("alice")
        assert (await alice.call("POST", f"/knock/{resident.room.room_id}", {}, via=[RESIDENT])).status == 200
        told = (await sections(alice))["knock"][resident.room.room_id]["knock_state"]["events"]
        assert {"Mallory's", "x"}.isdisjoint(str(event["content"]) for event in told)
        assert "m.room.topic" not in types(told)


async def test_a_knock_is_refused(serve: Serve) -> None:
    resident = open_room(join_rule="invite")
    async with serve(resident) as site:
        alice = await site.register("alice")
        reply = await alice.call("POST", f"/knock/{resident.room.room_id}", {}, via=[RESIDENT])
        refused(reply, 403, "M_FORBIDDEN")
        refused(await alice.call("POST", "/knock/!nowhere:test", {}), 404, "M_NOT_FOUND")
        assert await sections(alice) == {}


async def take_back(db: Database, pdu: Pdu, *, origin: ServerName = RESIDENT) -> None:
    """Has another server tell of the end of an invitation or a knock."""
    async with db.connection() as conn:
        room = await get_room(conn, pdu.room_id)
    await RescindedInvites(db=db, out_of_band=out_of_band(db)).receive(origin, room, pdu)


@pytest.mark.parametrize("membership", ["leave", "ban"])
async def test_an_invitation_is_taken_back(serve: Serve, db: Database, membership: str) -> None:
    resident = open_room()
    async with serve(resident) as site:
        alice = await site.register("alice")
        await invite(db, resident)
        since = (await alice.get("/sync"))["next_batch"]
        await take_back(db, resident.room.send(DORA, "m.room.member", {"membership": membership}, state_key=ALICE))
        assert (await sections(alice, since)).keys() == {"leave"}


async def test_an_invitation_is_not_taken_back_by_strangers(db: Database) -> None:
    """S1: only those who can be presumed to speak for the room end a membership there."""
    resident = open_room()
    await invite(db, resident)
    strange = resident.room.draft(
        UserId(f"@eve:{ELSEWHERE}"), "m.room.member", {"membership": "leave"}, state_key=ALICE
    )
    with pytest.raises(Forbidden):
        await take_back(db, strange, origin=ELSEWHERE)
    async with db.connection() as conn:
        assert await conn.fetchval("SELECT membership FROM memberships") == "invite"


async def test_nothing_ends_where_nothing_is_outstanding(serve: Serve, db: Database) -> None:
    resident = open_room()
    kick = resident.room.draft(DORA, "m.room.member", {"membership": "leave"}, state_key=ALICE)
    async with serve(resident) as site:
        await enter(await site.register("bob"), resident.room.room_id, RESIDENT)
        with pytest.raises(Forbidden):
            await take_back(db, kick)
        with pytest.raises(ServerIsInRoom):
            await out_of_band(db).record(kick)


async def test_an_invitation_that_the_room_does_not_know_ends_with_the_join_of_another(
    serve: Serve, db: Database
) -> None:
    """S12: who has been invited by a liar is not left with an invitation that nobody can accept."""
    resident = open_room()
    lie = resident.room.draft(DORA, "m.room.member", {"membership": "invite"}, state_key=ALICE)
    async with serve(resident) as site:
        alice, bob = await site.register("alice"), await site.register("bob")
        await out_of_band(db).record(lie)
        assert (await sections(alice)).keys() == {"invite"}
        await enter(bob, resident.room.room_id, RESIDENT)
        assert await sections(alice) == {}
        await check_whole(db, resident.room.room_id)


async def test_an_invitation_that_was_never_allowed_is_no_part_of_the_state(serve: Serve, db: Database) -> None:
    """S10: it was stored before anybody could judge it; that does not make it right."""
    resident = open_room()
    join(resident.room, EMIL)
    resident.room.send(DORA, "m.room.power_levels", {"users": {DORA: 100}, "invite": 50}, state_key="")
    lie = resident.room.draft(EMIL, "m.room.member", {"membership": "invite"}, state_key=ALICE)
    resident.answer = lambda answer: with_state(answer, lie.json)
    async with serve(resident) as site:
        alice, bob = await site.register("alice"), await site.register("bob")
        await out_of_band(db).record(lie)
        assert (await enter(bob, resident.room.room_id, RESIDENT)).status == 200
        assert await sections(alice) == {}
        await check_whole(db, resident.room.room_id)


async def test_an_account_that_is_closed_leaves_what_it_is_invited_to(serve: Serve, db: Database) -> None:
    resident = open_room(join_rule="invite")
    async with serve(resident) as site:
        alice = await site.register("alice")
        await invite(db, resident)
        room_id: RoomId = resident.room.room_id
        reply = await alice.call("PUT", f"/rooms/{room_id}/state/m.room.member/{ALICE}", {"membership": "leave"})
        assert reply.status == 200
        assert resident.room.membership(ALICE) == "leave"


async def test_other_ways_of_reading_know_of_invitations_too(serve: Serve, db: Database) -> None:
    """S5: nothing fails because of a room of which there is only an invitation."""
    resident = open_room()
    room_id = resident.room.room_id
    async with serve(resident) as site:
        alice = await site.register("alice")
        await invite(db, resident)
        rooms = (await alice.get("/initialSync"))["rooms"]
        assert [(room["room_id"], room["membership"]) for room in rooms] == [(room_id, "invite")]
        for path in ("state", "members", "joined_members", "messages", "initialSync", "event/$a", "context/$a"):
            reply = await alice.call("GET", f"/rooms/{room_id}/{path}", dir="b")
            assert reply.status in (403, 404), (path, reply.body)
        assert (await alice.get("/joined_rooms"))["joined_rooms"] == []
        assert (await alice.get("/publicRooms"))["chunk"] == []
        for path in (f"/rooms/{room_id}/send/m.room.message/1", f"/rooms/{room_id}/typing/{ALICE}"):
            refused(await alice.call("PUT", path, {"typing": False}), 403, "M_FORBIDDEN")
        for action in ("kick", "ban", "invite"):
            refused(await alice.call("POST", f"/rooms/{room_id}/{action}", {"user_id": DORA}), 403, "M_FORBIDDEN")
        refused(await alice.call("POST", f"/rooms/{room_id}/unban", {"user_id": DORA}), 403, "M_FORBIDDEN")
        summary = await alice.call("GET", f"/_matrix/client/v1/room_summary/{room_id}")
        assert summary.status in (200, 404), summary.body
        hierarchy = await alice.call("GET", f"/_matrix/client/v1/rooms/{room_id}/hierarchy")
        assert hierarchy.status in (200, 403, 404, 502), hierarchy.body
        assert (await alice.call("GET", "/notifications")).status == 200
