"""Invitations of our users by other servers."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from homeserver.core.event_format import parse_pdu
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import ROOM_VERSIONS
from tests.api.server import CONFIG, Client, refused, with_changes
from tests.federation.memberships.world import V1, V2, Elsewhere, World, id_of, path_of, running_world
from tests.federation.peer_room import PeerRoom
from tests.web.harness import Reply

VERSIONS = ("1", "2", "3", "6", "9", "10", "11", "12")
STRIPPED = ("content", "sender", "state_key", "type")


def room_of(server: Elsewhere, version: str = "11", *, creator: str = "uma") -> PeerRoom:
    """A room of another server."""
    user_id = server.user(creator)
    room = PeerRoom.create(name=server.name, key=server.key, creator=user_id, version=version)
    room.send(user_id, "m.room.name", {"name": "Their room"}, state_key="")
    return room


def told_of(room: PeerRoom) -> list[Mapping[str, Any]]:
    """What is told of a room, as whole events."""
    types = ("m.room.create", "m.room.name", "m.room.join_rules")
    return [pdu.json for slot, pdu in room.pdus(room.current_state).items() if slot[0] in types]


def stripped(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same, as older servers tell it."""
    return [{name: event[name] for name in STRIPPED} for event in events]


def invitation(room: PeerRoom, server: Elsewhere, target: str, **content: Any) -> Pdu:
    """An invitation to a room."""
    return room.draft(server.user(), "m.room.member", {"membership": "invite", **content}, state_key=target)


async def invite(
    server: Elsewhere,
    room: PeerRoom,
    event: Pdu | Mapping[str, Any],
    *,
    told: Any = None,
    room_id: str | None = None,
    event_id: str | None = None,
    version: str | None = None,
) -> Reply:
    """Sends an invitation."""
    json = event.json if isinstance(event, Pdu) else event
    body = {
        "room_version": version or room.version.identifier,
        "event": json,
        "invite_room_state": told_of(room) if told is None else told,
    }
    path = path_of(room_id or room.room_id, event_id or id_of(json, room.version))
    return await server.ask("PUT", f"{V2}/invite/{path}", body)


async def invited_rooms(user: Client) -> dict[str, Any]:
    """The rooms that a user is invited to, each with what it is told of it."""
    rooms = (await user.get("/sync")).get("rooms", {}).get("invite", {})
    return {room_id: room["invite_state"]["events"] for room_id, room in rooms.items()}


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_invitation(world: World, alice: Client, other: Elsewhere, version: str) -> None:
    room = room_of(other, version)
    pdu = invitation(room, other, alice.user_id)
    event = {**pdu.json, "unsigned": {"note": "untouched"}}
    reply = await invite(other, room, event)
    assert reply.status == 200, reply.body
    signed = reply.json["event"]
    assert world.is_signed_here(signed, version)
    assert signed["signatures"][other.name] == pdu.json["signatures"][other.name]
    assert {**signed, "signatures": pdu.json["signatures"]} == event
    assert parse_pdu(signed, ROOM_VERSIONS[version], room_id=room.room_id).event_id == pdu.event_id
    events = (await invited_rooms(alice))[room.room_id]
    assert {(each["type"], each["state_key"]) for each in events} == {
        ("m.room.create", ""),
        ("m.room.name", ""),
        ("m.room.join_rules", ""),
        ("m.room.member", alice.user_id),
    }
    assert all(set(each) <= {*STRIPPED, "event_id", "origin_server_ts", "unsigned"} for each in events)
    again = await invite(other, room, event)
    assert again.json == reply.json
    assert set(await invited_rooms(alice)) == {room.room_id}


@pytest.mark.parametrize("version", ["1", "2"])
async def test_the_older_form(world: World, alice: Client, other: Elsewhere, version: str) -> None:
    room = room_of(other, version)
    pdu = invitation(room, other, alice.user_id)
    body = {**pdu.json, "unsigned": {"invite_room_state": stripped(told_of(room))}}
    path = f"{V1}/invite/{path_of(room.room_id, pdu.event_id)}"
    reply = await other.ask("PUT", path, body)
    assert reply.status == 200, reply.body
    status, answer = reply.json
    assert status == 200
    assert world.is_signed_here(answer["event"], version)
    assert {**answer["event"], "signatures": pdu.json["signatures"]} == body
    names = [each["content"] for each in (await invited_rooms(alice))[room.room_id] if each["type"] == "m.room.name"]
    assert names == [{"name": "Their room"}]
    # The room is known by its real version now, whichever form comes next.
    assert (await invite(other, room, invitation(room, other, alice.user_id))).status == 200


async def test_the_older_form_is_for_older_rooms(world: World, alice: Client, other: Elsewhere) -> None:
    room = room_of(other, "11")
    pdu = invitation(room, other, alice.user_id)
    path = f"{V1}/invite/{path_of(room.room_id, pdu.event_id)}"
    assert (await other.ask("PUT", path, pdu.json)).status == 400
    assert (await invite(other, room, pdu)).status == 200
    error = refused(await other.ask("PUT", path, pdu.json), 400, "M_INCOMPATIBLE_ROOM_VERSION")
    assert error["room_version"] == "11"


async def test_versions_that_are_not_supported(world: World, alice: Client, other: Elsewhere) -> None:
    room = room_of(other)
    pdu = invitation(room, other, alice.user_id)
    error = refused(await invite(other, room, pdu, version="org.example.99"), 400, "M_INCOMPATIBLE_ROOM_VERSION")
    assert error["room_version"] == "org.example.99"
    assert (await invite(other, room, pdu)).status == 200
    refused(await invite(other, room, pdu, version="10"), 400, "M_INVALID_PARAM")


class TestWhatIsNoInvitation:
    """S1, S8: this server signs nothing else."""

    async def test_other_events(self, world: World, alice: Client, other: Elsewhere) -> None:
        room = room_of(other)
        others: list[dict[str, Any]] = [
            {"type": "m.room.topic"},
            {"content": {"membership": "join"}},
            {"content": {"membership": "leave"}},
            {"content": {"membership": "ban"}},
            {"content": {}},
            {"state_key": "@alice:elsewhere.example"},
            {"state_key": "alice"},
            {"state_key": ""},
            {"sender": "@alice:test"},
            {"sender": "@bob:third.example"},
        ]
        for changes in others:
            event = other.sign({**invitation(room, other, alice.user_id).json, **changes}, "11")
            reply = await invite(other, room, event)
            refused(reply, 400, "M_INVALID_PARAM")
            assert b"signatures" not in reply.body
        assert await invited_rooms(alice) == {}

    async def test_another_path(self, world: World, alice: Client, other: Elsewhere) -> None:
        room = room_of(other)
        pdu = invitation(room, other, alice.user_id)
        refused(await invite(other, room, pdu, event_id="$" + 43 * "a"), 400, "M_INVALID_PARAM")
        refused(await invite(other, room, pdu, room_id="!another:elsewhere.example"), 400, "M_BAD_JSON")
        assert await invited_rooms(alice) == {}

    @pytest.mark.parametrize("api", [V1, V2])
    async def test_signatures(self, world: World, alice: Client, other: Elsewhere, api: str) -> None:
        refusal = (403, "M_FORBIDDEN") if api == V1 else (400, "M_INVALID_PARAM")
        room = room_of(other, "2")
        # With the exception that is made for third-party invites elsewhere.
        for content in ({}, {"third_party_invite": {"signed": {"mxid": alice.user_id, "token": "t"}}}):
            pdu = invitation(room, other, alice.user_id, **content)
            path = f"{api}/invite/{path_of(room.room_id, pdu.event_id)}"
            for signatures in ({}, {str(other.name): {other.key.key_id: "a" * 86}}):
                event = {**pdu.json, "signatures": signatures}
                body = event if api == V1 else {"room_version": "2", "event": event}
                refused(await other.ask("PUT", path, body), *refusal)
        assert await invited_rooms(alice) == {}

    async def test_another_servers_invitation(self, world: World, alice: Client, other: Elsewhere) -> None:
        room = room_of(other)
        thief = world.server("thief.example")
        refused(await invite(thief, room, invitation(room, other, alice.user_id)), 400, "M_INVALID_PARAM")

    async def test_a_changed_content(self, world: World, alice: Client, other: Elsewhere) -> None:
        room = room_of(other)
        event = invitation(room, other, alice.user_id).json
        changed = {**event, "content": {"membership": "invite", "reason": "Something else"}}
        refused(await invite(other, room, changed), 400, "M_INVALID_PARAM")

    async def test_numbers_that_the_room_version_does_not_have(
        self, world: World, alice: Client, other: Elsewhere
    ) -> None:
        room = room_of(other, "6")
        event = {**invitation(room, other, alice.user_id).json, "content": {"membership": "invite", "bad": 1.1}}
        refused(await invite(other, room, event, event_id="$" + 43 * "a"), 400, "M_BAD_JSON")


async def test_who_can_be_invited(world: World, alice: Client, other: Elsewhere) -> None:
    room = room_of(other)
    refused(await invite(other, room, invitation(room, other, "@nobody:test")), 403, "M_FORBIDDEN")
    bob = await world.site.register("bob")
    auth = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "bob"}}
    password = {"password": "correct horse battery staple"}
    await bob.post("/account/deactivate", {"auth": {**auth, **password}})
    refused(await invite(other, room, invitation(room, other, bob.user_id)), 403, "M_FORBIDDEN")


async def test_users_who_want_no_invitations(world: World, alice: Client, other: Elsewhere) -> None:
    path = f"/user/{alice.user_id}/account_data/m.invite_permission_config"
    await alice.put(path, {"default_action": "block"})
    room = room_of(other)
    refused(await invite(other, room, invitation(room, other, alice.user_id)), 403, "M_INVITE_BLOCKED")
    assert await invited_rooms(alice) == {}


async def test_a_room_that_this_server_is_in(world: World, alice: Client, other: Elsewhere) -> None:
    """The invitation is signed; it becomes one when it comes with the room's other events."""
    bob = await world.site.register("bob")
    room_id = await world.create_room(alice)
    answer = await other.enter("join", room_id, other.user())
    room = PeerRoom.adopt(
        name=other.name,
        key=other.key,
        version=ROOM_VERSIONS["11"],
        room_id=room_id,
        state=answer["state"],
        auth_chain=answer["auth_chain"],
        join=answer["event"],
    )
    pdu = invitation(room, other, bob.user_id)
    reply = await invite(other, room, pdu)
    assert reply.status == 200, reply.body
    assert world.is_signed_here(reply.json["event"], "11")
    assert await invited_rooms(bob) == {}
    # Whom our own users may invite, others may too, though nobody has that name yet.
    assert (await invite(other, room, invitation(room, other, "@nobody:test"))).status == 200
    await world.set_state(alice, room_id, "m.room.server_acl", {"allow": ["*"], "deny": [other.name]})
    refused(await invite(other, room, pdu), 403, "M_FORBIDDEN")


class TestWhatIsToldOfTheRoom:
    """What an inviting server says of the room is not believed (S4, S5)."""

    async def test_up_to_version_11_anything_may_be_lacking(
        self, world: World, alice: Client, other: Elsewhere
    ) -> None:
        lacking: list[list[dict[str, Any]]] = [[], [{}], [{"type": "m.room.name"}], stripped(told_of(room_of(other)))]
        for told in lacking:
            room = room_of(other, "11")
            assert (await invite(other, room, invitation(room, other, alice.user_id), told=told)).status == 200
        without = room_of(other, "11")
        pdu = invitation(without, other, alice.user_id)
        path = f"{V2}/invite/{path_of(without.room_id, pdu.event_id)}"
        assert (await other.ask("PUT", path, {"room_version": "11", "event": pdu.json})).status == 200
        assert len(await invited_rooms(alice)) == 5

    async def test_malformed_events_do_no_harm(self, world: World, alice: Client, other: Elsewhere) -> None:
        room = room_of(other, "11")
        name = {"type": "m.room.name", "state_key": "", "sender": other.user(), "content": {"name": "Good"}}
        told = [
            {"type": 1, "state_key": [], "sender": None, "content": "x"},
            {**name, "content": []},
            {**name, "sender": "nobody"},
            {**name, "state_key": None},
            {**name, "type": "\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace") * 300},
            {**name, "extra": {"deep": {"er": 1}}},
        ]
        assert (await invite(other, room, invitation(room, other, alice.user_id), told=told)).status == 200
        events = (await invited_rooms(alice))[room.room_id]
        shown = [each for each in events if each["type"] != "m.room.member"]
        assert shown == [name]

    async def test_too_much(self, world: World, alice: Client, other: Elsewhere) -> None:
        room = room_of(other, "11")
        large = {"type": "m.room.topic", "state_key": "", "sender": other.user(), "content": {"topic": "x" * 70_000}}
        small = {**large, "type": "m.room.name", "content": {"name": "Good"}}
        pdu = invitation(room, other, alice.user_id)
        refused(await invite(other, room, pdu, told=[large] * 20), 413, "M_TOO_LARGE")
        refused(await invite(other, room, pdu, told=[small] * 101), 400, "M_INVALID_PARAM")
        refused(await invite(other, room, pdu, told={"events": []}), 400, "M_BAD_JSON")
        refused(await invite(other, room, pdu, told=["event"]), 400, "M_BAD_JSON")
        assert (await invite(other, room, pdu, told=[large, small])).status == 200
        events = (await invited_rooms(alice))[room.room_id]
        assert [each["type"] for each in events if each["type"] != "m.room.member"] == ["m.room.name"]

    async def test_from_version_12_on_everything_must_be_right(
        self, world: World, alice: Client, other: Elsewhere
    ) -> None:
        room, another = room_of(other, "12"), room_of(other, "12", creator="ulla")
        told = told_of(room)
        create = next(event for event in told if event["type"] == "m.room.create")
        name = next(event for event in told if event["type"] == "m.room.name")
        older = {**create, "content": {**create["content"], "room_version": "11"}}
        pdu = invitation(room, other, alice.user_id)
        for wrong in (
            [],
            stripped(told),
            [event for event in told if event is not create],
            [create, {**name, "signatures": {str(other.name): {other.key.key_id: "a" * 86}}}],
            [create, {**name, "content": {"name": "Changed"}, "hashes": {"sha256": "x"}}],
            [create, *told_of(another)],
            told_of(another),
            [older],
            [create, room.say(other.user(), "Hello").json],
        ):
            refused(await invite(other, room, pdu, told=wrong), 400, "M_INVALID_PARAM")
        assert await invited_rooms(alice) == {}
        assert (await invite(other, room, pdu, told=told)).status == 200


async def test_not_too_many(database_url: str) -> None:
    config = with_changes(CONFIG, rate_limits={"enabled": True})
    async with running_world(database_url, config) as world:
        alice, other = await world.site.register("alice"), world.server()
        room = room_of(other)
        event = invitation(room, other, alice.user_id)
        replies = [await invite(other, room, event) for _ in range(config.rate_limits.invite.burst + 1)]
        assert [reply.status for reply in replies[:-1]] == [200] * config.rate_limits.invite.burst
        assert refused(replies[-1], 429, "M_LIMIT_EXCEEDED")["retry_after_ms"] > 0
