"""Inviting users of other servers, and restricted rooms where only users of other servers can vouch."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
import pytest

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import RemoteUnavailable
from homeserver.core.ids import RoomId
from homeserver.core.pdu import Pdu
from homeserver.core.signing import verify_event
from homeserver.services.remote import SentJoin
from storage.database import Database
from tests.api.server import Client, refused
from tests.rooms.remote_membership.conftest import Serve
from tests.rooms.remote_membership.resident import DORA, KEY, RESIDENT, Resident, open_room
from tests.rooms.remote_membership.resident import refused as refused_by_them
from tests.rooms.remote_membership.test_joining import check_whole, enter, last_event


async def create(client: Client, version: str = "11", **how: Any) -> RoomId:
    """Makes a room of ours."""
    return RoomId((await client.post("/createRoom", {"room_version": version, **how}))["room_id"])


async def membership(client: Client, room_id: RoomId, user_id: str) -> str | None:
    """The membership of a user, as a member sees it."""
    reply = await client.call("GET", f"/rooms/{room_id}/state/m.room.member/{user_id}")
    return None if reply.status == 404 else str(reply.json["membership"])


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
async def test_the_invited_server_signs_first(serve: Serve, db: Database, version: str) -> None:
    resident = open_room()
    async with serve(resident) as site:
        alice = await site.register("alice")
        room_id = await create(alice, version, name="Alice's")
        await alice.post(f"/rooms/{room_id}/invite", {"user_id": DORA, "reason": "hello"})
        assert await membership(alice, room_id, DORA) == "invite"
        stored = await last_event(db)
        assert stored.content == {"membership": "invite", "reason": "hello"}
        assert verify_event(stored.json, RESIDENT, KEY.verify_key, stored.room_version)
        assert stored.json["signatures"].keys() == {"test", RESIDENT}
        ((sent, room_state),) = resident.invited
        assert sent.event_id == stored.event_id
        # Whole events, so that it can be checked which room it is.
        assert {"m.room.create", "m.room.name", "m.room.join_rules", "m.room.member"} == {
            event["type"] for event in room_state
        }
        assert all("signatures" in event and "hashes" in event for event in room_state)
        await check_whole(db, room_id)
        # Once more: there is nothing to do.
        await alice.post(f"/rooms/{room_id}/invite", {"user_id": DORA, "reason": "hello"})
        assert len(resident.invited) == 1


@pytest.mark.parametrize(
    ("profile", "shown"),
    [
        ({"displayname": "Dora", "avatar_url": "mxc://resident.example/d", "m.tz": "UTC"}, {"displayname": "Dora"}),
        ({"displayname": None, "avatar_url": 5}, {}),
        ({"displayname": "x" * 1025, "avatar_url": "\0"}, {}),
    ],
)
async def test_who_is_invited_is_shown_by_name(
    serve: Serve, db: Database, profile: Mapping[str, Any], shown: Mapping[str, Any]
) -> None:
    resident = open_room()
    resident.profiles[DORA] = profile
    async with serve(resident) as site:
        alice = await site.register("alice")
        room_id = await create(alice)
        await alice.post(f"/rooms/{room_id}/invite", {"user_id": DORA})
        picture = {"avatar_url": "mxc://resident.example/d"} if shown else {}
        assert (await last_event(db)).content == {"membership": "invite", **shown, **picture}


@pytest.mark.parametrize(
    ("theirs", "status", "errcode"),
    [
        (refused_by_them("M_FORBIDDEN"), 403, "M_FORBIDDEN"),
        (refused_by_them("M_INVITE_BLOCKED"), 403, "M_INVITE_BLOCKED"),
        (refused_by_them("M_INCOMPATIBLE_ROOM_VERSION", 400), 400, "M_UNSUPPORTED_ROOM_VERSION"),
        (refused_by_them("M_INVALID_PARAM", 400), 502, "M_UNKNOWN"),
        (RemoteUnavailable("away"), 502, "M_UNKNOWN"),
    ],
)
async def test_a_refused_invitation_is_no_part_of_the_room(
    serve: Serve, theirs: Exception, status: int, errcode: str
) -> None:
    resident = open_room()
    resident.refusals[(RESIDENT, "invite")] = theirs
    async with serve(resident) as site:
        alice = await site.register("alice")
        room_id = await create(alice)
        refused(await alice.call("POST", f"/rooms/{room_id}/invite", {"user_id": DORA}), status, errcode)
        assert await membership(alice, room_id, DORA) is None


@pytest.mark.parametrize(
    "countersign",
    [
        lambda event: {**event, "signatures": {"test": event["signatures"]["test"]}},
        lambda event: {**event, "signatures": {**event["signatures"], RESIDENT: {KEY.key_id: KEY.sign(b"else")}}},
        lambda event: {**event, "signatures": {**event["signatures"], RESIDENT: {"ed25519:new": "AAAA"}}},
        lambda event: {**event, "signatures": {**event["signatures"], RESIDENT: 7}},
        lambda event: {"signatures": []},
        lambda event: {},
    ],
)
async def test_an_invitation_without_their_signature(serve: Serve, countersign: Any) -> None:
    """S1: an answer that does not hold a right signature of the event that was sent counts for nothing."""
    resident = open_room()
    resident.countersign = countersign
    async with serve(resident) as site:
        alice = await site.register("alice")
        room_id = await create(alice)
        refused(await alice.call("POST", f"/rooms/{room_id}/invite", {"user_id": DORA}), 502, "M_UNKNOWN")
        assert await membership(alice, room_id, DORA) is None


async def test_nothing_but_the_signature_is_taken(serve: Serve, db: Database) -> None:
    """S8: what else the invited server has changed is not stored."""
    resident = open_room()
    resident.countersign = lambda event: {**event, "unsigned": {"a": 1}, "content": {"membership": "join"}}
    async with serve(resident) as site:
        alice = await site.register("alice")
        room_id = await create(alice)
        await alice.post(f"/rooms/{room_id}/invite", {"user_id": DORA})
        stored = await last_event(db)
        assert stored.content == {"membership": "invite"}
        assert "unsigned" not in stored.json


async def test_who_may_not_invite_asks_nobody(serve: Serve) -> None:
    resident = open_room()
    async with serve(resident) as site:
        alice, bob = await site.register("alice"), await site.register("bob")
        room_id = await create(alice)
        refused(await bob.call("POST", f"/rooms/{room_id}/invite", {"user_id": DORA}), 403, "M_FORBIDDEN")
    assert not resident.asked


async def test_a_new_room_invites_users_of_other_servers(serve: Serve, db: Database) -> None:
    resident = open_room()
    async with serve(resident) as site:
        alice, bob = await site.register("alice"), await site.register("bob")
        room_id = await create(
            alice, invite=[DORA, bob.user_id, "@eve:gone.example"], is_direct=True, preset="trusted_private_chat"
        )
        assert await membership(alice, room_id, DORA) == "invite"
        assert await membership(alice, room_id, bob.user_id) == "invite"
        # Where it fails, the room is there all the same.
        assert await membership(alice, room_id, "@eve:gone.example") is None
        assert (await last_event(db)).content["is_direct"] is True
        levels = await alice.get(f"/rooms/{room_id}/state/m.room.power_levels")
        assert levels["users"][DORA] == 100
        await check_whole(db, room_id)


async def test_the_invited_user_comes_in(serve: Serve, db: Database) -> None:
    """What the other server makes of the invitation fits what is stored here."""
    resident = open_room()
    async with serve(resident) as site:
        alice = await site.register("alice")
        room_id = await create(alice)
        await alice.post(f"/rooms/{room_id}/invite", {"user_id": DORA})
        path = f"/_matrix/federation/v1/make_join/{room_id}/{DORA}"
        template = (await site.ask_as(RESIDENT, "GET", path, ver="11")).json["event"]
        signed = sign(resident, template)
        path = f"/_matrix/federation/v2/send_join/{room_id}/{resident.room.id_of(signed)}"
        assert (await site.ask_as(RESIDENT, "PUT", path, signed)).status == 200
        assert await membership(alice, room_id, DORA) == "join"


def sign(resident: Resident, template: dict[str, Any]) -> dict[str, Any]:
    """A template as an event of the resident server."""
    return dict(orjson.loads(encode_canonical(resident.room.forge(template))))


def restrict(resident: Resident, allowed: RoomId) -> None:
    """Opens the room to the members of another one."""
    content = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": allowed}]}
    resident.room.send(DORA, "m.room.join_rules", content, state_key="")


@pytest.mark.parametrize("version", ["8", "10", "12"])
async def test_a_restricted_room_is_entered_by_the_right_of_another(serve: Serve, db: Database, version: str) -> None:
    resident = open_room(version)
    async with serve(resident) as site:
        alice, bob = await site.register("alice"), await site.register("bob")
        restrict(resident, await create(alice))
        assert (await enter(alice, resident.room.room_id, RESIDENT)).status == 200
        stored = await last_event(db)
        assert stored.content["join_authorised_via_users_server"] == DORA
        assert stored.json["signatures"].keys() == {"test", RESIDENT}
        await check_whole(db, resident.room.room_id)
        # Bob meets no condition; that is known here.
        asked = len(resident.asked)
        refused(await enter(bob, resident.room.room_id, RESIDENT), 403, "M_FORBIDDEN")
        assert len(resident.asked) == asked


@pytest.mark.parametrize("version", ["8", "12"])
async def test_our_server_is_in_the_room_but_cannot_vouch(serve: Serve, db: Database, version: str) -> None:
    """A server in which somebody may invite is asked; of its answer only the signed join is used."""
    resident = open_room(version)
    levels = {"users": {} if version == "12" else {DORA: 100}, "invite": 50}
    resident.room.send(DORA, "m.room.power_levels", levels, state_key="")
    async with serve(resident) as site:
        alice, bob = await site.register("alice"), await site.register("bob")
        restrict(resident, await create(alice, preset="public_chat"))
        allowed = (await alice.get("/joined_rooms"))["joined_rooms"][0]
        await enter(bob, allowed)
        assert (await enter(alice, resident.room.room_id, RESIDENT)).status == 200
        resident.answer = lambda answer: replace(answer, state=[], auth_chain=[])
        # Nobody has to name the server.
        assert (await enter(bob, resident.room.room_id)).status == 200
        assert await membership(alice, resident.room.room_id, bob.user_id) == "join"
        stored: Pdu = await last_event(db)
        assert stored.sender == bob.user_id
        assert stored.json["signatures"].keys() == {"test", RESIDENT}
        await check_whole(db, resident.room.room_id)


async def test_nobody_can_vouch(serve: Serve) -> None:
    resident = open_room("10")
    resident.room.send(DORA, "m.room.power_levels", {"users": {DORA: 100}, "invite": 50}, state_key="")
    async with serve(resident) as site:
        alice, bob = await site.register("alice"), await site.register("bob")
        allowed = await create(alice, preset="public_chat")
        restrict(resident, allowed)
        await enter(bob, allowed)
        await enter(alice, resident.room.room_id, RESIDENT)
        resident.refusals[(RESIDENT, "make_join")] = RemoteUnavailable("away")
        refused(await enter(bob, resident.room.room_id), 403, "M_FORBIDDEN")


async def test_a_join_that_nobody_has_vouched_for_is_refused(serve: Serve) -> None:
    """S1: the signature of who vouches must be right."""
    resident = open_room("10")
    async with serve(resident) as site:
        alice = await site.register("alice")
        restrict(resident, await create(alice))
        changes: list[Callable[[Mapping[str, Any]], Mapping[str, Any] | None]] = [
            lambda _: None,
            lambda _: {},
            lambda join: {**join, "signatures": {"test": join["signatures"]["test"]}},
            _wrongly_signed,
        ]
        for change in changes:
            resident.answer = partial(_with_join, change)
            refused(await enter(alice, resident.room.room_id, RESIDENT), 502, "M_UNKNOWN")


def _with_join(change: Callable[[Mapping[str, Any]], Mapping[str, Any] | None], answer: SentJoin) -> SentJoin:
    assert answer.event is not None
    return replace(answer, event=change(answer.event))


def _wrongly_signed(event: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**event, "signatures": {**event["signatures"], RESIDENT: {KEY.key_id: KEY.sign(b"else")}}}
