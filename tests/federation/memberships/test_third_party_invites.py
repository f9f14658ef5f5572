"""Invitations of e-mail addresses that become invitations of users: exchange_third_party_invite and onbind."""

import secrets
from typing import Any

import pytest

from homeserver.core.errors import Forbidden, RemoteUnavailable
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.signing import SigningKey, sign_json
from tests.api.server import Client, refused
from tests.federation.memberships.test_invites import invited_rooms
from tests.federation.memberships.world import V1, Elsewhere, World, path_of
from tests.federation.peer_room import PeerRoom
from tests.web.harness import Reply

TOKEN = "a_token"
DISPLAY_NAME = "a…@example.com"
ON_BIND = f"{V1}/3pid/onbind"


class IdentityServer:
    """Confirms whose an address is."""

    def __init__(self) -> None:
        self.key = SigningKey.from_seed("0", secrets.token_bytes(32))

    def offer(self) -> dict[str, Any]:
        """The content of an `m.room.third_party_invite`."""
        key = self.key.verify_key.encode()
        return {"display_name": DISPLAY_NAME, "key_validity_url": "https://id.example/valid", "public_key": key}

    def confirm(self, user_id: str, *, token: str = TOKEN) -> dict[str, Any]:
        """What it signs."""
        return sign_json({"mxid": user_id, "token": token}, "id.example", self.key)


@pytest.fixture
def identity() -> IdentityServer:
    """An identity server."""
    return IdentityServer()


@pytest.fixture
async def room_id(world: World, alice: Client, identity: IdentityServer) -> str:
    """A closed room to which an address is invited."""
    room_id = await world.create_room(alice, preset="private_chat")
    await world.set_state(alice, room_id, "m.room.third_party_invite", identity.offer(), TOKEN)
    return room_id


def part_of_invite(room_id: str, sender: str, target: str, signed: Any, **changes: Any) -> dict[str, Any]:
    """What the invited server knows of an invitation."""
    content = {"membership": "invite", "third_party_invite": {"display_name": "whoever", "signed": signed}}
    event = {"type": "m.room.member", "room_id": room_id, "sender": sender, "state_key": target, "content": content}
    return {**event, **changes}


async def exchange(server: Elsewhere, room_id: str, event: Any) -> Reply:
    """Asks for an invitation."""
    return await server.ask("PUT", f"{V1}/exchange_third_party_invite/{path_of(room_id)}", event)


class TestExchange:
    """A server asks for an invitation of its user."""

    async def test_the_user_is_invited(
        self, world: World, alice: Client, other: Elsewhere, identity: IdentityServer, room_id: str
    ) -> None:
        signed = identity.confirm(other.user())
        event = part_of_invite(room_id, alice.user_id, other.user(), signed)
        event["content"]["displayname"] = "Not taken over"
        reply = await exchange(other, room_id, event)
        assert (reply.status, reply.json) == (200, {}), reply.body
        (pdu, told), *_ = world.rooms.invited
        assert (pdu.sender, pdu.state_key) == (alice.user_id, other.user())
        assert pdu.content["third_party_invite"] == {"display_name": DISPLAY_NAME, "signed": signed}
        assert "displayname" not in pdu.content
        assert any(each["type"] == "m.room.create" for each in told)
        assert await world.membership(alice, room_id, other.user()) == "invite"
        await other.enter("join", room_id, other.user())

    async def test_only_for_its_own_users(
        self, world: World, alice: Client, other: Elsewhere, identity: IdentityServer, room_id: str
    ) -> None:
        thief = world.server("thief.example")
        event = part_of_invite(room_id, alice.user_id, other.user(), identity.confirm(other.user()))
        refused(await exchange(thief, room_id, event), 403, "M_FORBIDDEN")
        assert await world.membership(alice, room_id, other.user()) is None

    async def test_only_what_the_identity_server_has_confirmed(
        self, world: World, alice: Client, other: Elsewhere, identity: IdentityServer, room_id: str
    ) -> None:
        """S8: this server invites nobody else in the name of its users."""
        good = identity.confirm(other.user())
        for signed in (
            {**good, "signatures": {}},
            {**good, "extra": 1},
            IdentityServer().confirm(other.user()),
            identity.confirm(other.user(), token="another_token"),
        ):
            reply = await exchange(other, room_id, part_of_invite(room_id, alice.user_id, other.user(), signed))
            refused(reply, 403, "M_FORBIDDEN")
        for signed in (identity.confirm(other.user("another")), {}, {"mxid": other.user()}):
            reply = await exchange(other, room_id, part_of_invite(room_id, alice.user_id, other.user(), signed))
            refused(reply, 400, "M_INVALID_PARAM")
        assert world.rooms.invited == []
        assert await world.membership(alice, room_id, other.user()) is None

    async def test_only_in_the_name_of_who_invited_the_address(
        self, world: World, alice: Client, other: Elsewhere, identity: IdentityServer, room_id: str
    ) -> None:
        signed = identity.confirm(other.user())
        bob = await world.site.register("bob")
        for sender in (bob.user_id, "@somebody:third.example", other.user()):
            refused(
                await exchange(other, room_id, part_of_invite(room_id, sender, other.user(), signed)),
                403,
                "M_FORBIDDEN",
            )

    async def test_wrong_requests(
        self, world: World, alice: Client, other: Elsewhere, identity: IdentityServer, room_id: str
    ) -> None:
        good = part_of_invite(room_id, alice.user_id, other.user(), identity.confirm(other.user()))
        for changes in (
            {"type": "m.room.topic"},
            {"room_id": "!another:test"},
            {"state_key": "nobody"},
            {"sender": "nobody"},
            {"content": {**good["content"], "membership": "join"}},
        ):
            refused(await exchange(other, room_id, {**good, **changes}), 400, "M_INVALID_PARAM")
        for name in good:
            without = {key: value for key, value in good.items() if key != name}
            refused(await exchange(other, room_id, without), 400, "M_MISSING_PARAM")
        refused(await exchange(other, room_id, {**good, "content": {"membership": "invite"}}), 400, "M_MISSING_PARAM")
        nowhere = {**good, "room_id": "!nowhere:test"}
        refused(await exchange(other, "!nowhere:test", nowhere), 404, "M_NOT_FOUND")


def bound(user_id: str, room_id: str, sender: str, signed: Any, **changes: Any) -> dict[str, Any]:
    """What an identity server tells when an address gets known."""
    address = {"medium": "email", "address": "alice@example.com", "mxid": user_id}
    invite = {**address, "room_id": room_id, "sender": sender, "signed": signed}
    return {**address, "invites": [invite], **changes}


class TestOnBind:
    """An identity server tells whose an address is."""

    @pytest.mark.parametrize("method", ["PUT", "POST"])
    async def test_the_inviting_server_is_asked(
        self, world: World, alice: Client, other: Elsewhere, identity: IdentityServer, method: str
    ) -> None:
        signed = identity.confirm(alice.user_id)
        body = bound(alice.user_id, "!theirs:elsewhere.example", other.user(), signed)
        reply = await world.site.request(method, ON_BIND, json=body)
        assert (reply.status, reply.json) == (200, {})
        ((via, event),) = world.rooms.exchanged
        assert via == other.name
        assert event["content"]["third_party_invite"]["signed"] == signed
        assert isinstance(event["content"]["third_party_invite"]["display_name"], str)
        assert event == {
            "type": "m.room.member",
            "room_id": "!theirs:elsewhere.example",
            "sender": other.user(),
            "state_key": alice.user_id,
            "content": event["content"],
        }
        assert event["content"]["membership"] == "invite"

    async def test_a_room_of_this_server(
        self, world: World, alice: Client, identity: IdentityServer, room_id: str
    ) -> None:
        bob = await world.site.register("bob")
        body = bound(bob.user_id, room_id, alice.user_id, identity.confirm(bob.user_id))
        assert (await world.site.request("PUT", ON_BIND, json=body)).status == 200
        assert set(await invited_rooms(bob)) == {room_id}
        assert world.rooms.exchanged == []

    @pytest.mark.parametrize("version", ["1", "11", "12"])
    async def test_in_the_name_of_another_servers_user(
        self, world: World, alice: Client, other: Elsewhere, identity: IdentityServer, version: str
    ) -> None:
        """A server that is in the room makes the invitation itself; its signature alone is enough."""
        bob = await world.site.register("bob")
        room_id = await world.create_room(
            alice, version, power_level_content_override={"invite": 0, "state_default": 0}
        )
        answer = await other.enter("join", room_id, other.user())
        theirs = PeerRoom.adopt(
            name=other.name,
            key=other.key,
            version=ROOM_VERSIONS[version],
            room_id=room_id,
            state=answer["state"],
            auth_chain=answer["auth_chain"],
            join=answer["event"],
        )
        offer = theirs.draft(other.user(), "m.room.third_party_invite", identity.offer(), state_key=TOKEN)
        body = {"origin": other.name, "origin_server_ts": 0, "pdus": [offer.json]}
        reply = await other.ask("PUT", f"{V1}/send/1", body)
        assert reply.json["pdus"] == {offer.event_id: {}}
        told = bound(bob.user_id, room_id, other.user(), identity.confirm(bob.user_id))
        assert (await world.site.request("PUT", ON_BIND, json=told)).status == 200
        assert set(await invited_rooms(bob)) == {room_id}
        event = await alice.get(f"/rooms/{room_id}/state/m.room.member/{bob.user_id}", format="event")
        assert event["sender"] == other.user()
        assert event["content"]["third_party_invite"]["display_name"] == DISPLAY_NAME
        assert event["event_id"] in await world.relayed()

    async def test_what_is_not_true_comes_to_nothing(
        self, world: World, alice: Client, identity: IdentityServer, room_id: str
    ) -> None:
        bob = await world.site.register("bob")
        forged = IdentityServer().confirm(bob.user_id)
        for invite in (
            bound(bob.user_id, room_id, alice.user_id, forged),
            bound(bob.user_id, room_id, bob.user_id, identity.confirm(bob.user_id)),
            bound(bob.user_id, room_id, alice.user_id, identity.confirm(bob.user_id, token="another_token")),
            bound(bob.user_id, "!nowhere:test", alice.user_id, identity.confirm(bob.user_id)),
        ):
            assert (await world.site.request("PUT", ON_BIND, json=invite)).status == 200
        assert await invited_rooms(bob) == {}

    async def test_servers_that_cannot_be_asked(
        self, world: World, alice: Client, other: Elsewhere, identity: IdentityServer
    ) -> None:
        body = bound(alice.user_id, "!theirs:elsewhere.example", other.user(), identity.confirm(alice.user_id))
        world.rooms.failure = RemoteUnavailable("It is away")
        assert (await world.site.request("PUT", ON_BIND, json=body)).status == 502
        world.rooms.failure = Forbidden("It does not want to")
        assert (await world.site.request("PUT", ON_BIND, json=body)).status == 200

    async def test_wrong_requests(
        self, world: World, alice: Client, other: Elsewhere, identity: IdentityServer
    ) -> None:
        signed = identity.confirm(alice.user_id)
        good = bound(alice.user_id, "!theirs:elsewhere.example", other.user(), signed)
        for user_id in (other.user(), "nobody"):
            refused(await world.site.request("PUT", ON_BIND, json={**good, "mxid": user_id}), 400, "M_INVALID_PARAM")
        refused(await world.site.request("PUT", ON_BIND, json={**good, "mxid": "@nobody:test"}), 400, "M_INVALID_PARAM")
        nobody = bound("@nobody:test", "!theirs:elsewhere.example", other.user(), identity.confirm("@nobody:test"))
        refused(await world.site.request("PUT", ON_BIND, json=nobody), 403, "M_FORBIDDEN")
        for name in good:
            without = {key: value for key, value in good.items() if key != name}
            refused(await world.site.request("PUT", ON_BIND, json=without), 400, "M_MISSING_PARAM")
        many = {**good, "invites": good["invites"] * 51}
        refused(await world.site.request("PUT", ON_BIND, json=many), 400, "M_BAD_JSON")
        assert world.rooms.exchanged == []
