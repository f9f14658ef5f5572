"""What the use cases ask of other servers: paths, fallbacks for old servers, and answers that are wrong."""

import json
import secrets
from typing import Any

import pytest
from aiohttp import web

from federation.outbound.policy_servers import FederationPolicyServers
from federation.outbound.remote_directories import FederationDirectories
from federation.outbound.remote_events import FederationEvents
from federation.outbound.remote_profiles import FederationProfiles
from federation.outbound.remote_public_rooms import FederationPublicRooms
from federation.outbound.remote_rooms import FederationRooms
from homeserver.core.errors import NotFound, RemoteRefused, RemoteUnavailable
from homeserver.core.ids import EventId, RoomAlias, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.services.ports import PublicRoomsRequest
from tests.federation.peer import Peer
from tests.federation.peer_room import PeerRoom
from tests.federation.transport.ways import Ways

V1, V2 = "/_matrix/federation/v1", "/_matrix/federation/v2"
ROOM, USER, EVENT = RoomId.parse("!a/b:x.test"), UserId.parse("@ü/:us.test"), EventId.parse("$a/b+c")
UNRECOGNIZED = (404, {"errcode": "M_UNRECOGNIZED", "error": "?"})


def member_event(version: str = "10", **changes: Any) -> Pdu:
    json_object = {
        "type": "m.room.member",
        "room_id": ROOM,
        "sender": USER,
        "state_key": USER,
        "origin_server_ts": 1,
        "depth": 1,
        "content": {"membership": "join"},
        "prev_events": [],
        "auth_events": [],
        **changes,
    }
    return Pdu.trusted(json_object, EVENT, ROOM_VERSIONS[version], ROOM)


@pytest.fixture
def rooms(ways: Ways) -> FederationRooms:
    return FederationRooms(ways.client)


@pytest.fixture
def events(ways: Ways) -> FederationEvents:
    return FederationEvents(ways.client)


class TestRooms:
    """Memberships."""

    @pytest.mark.parametrize("kind", ["join", "knock", "leave"])
    async def test_templates(self, rooms: FederationRooms, peer: Peer, kind: str) -> None:
        path = f"GET {V1}/make_{kind}/{{room_id}}/{{user_id}}"
        peer.answers[path] = {"room_version": "10", "event": {"type": "m.room.member"}}
        made = await getattr(rooms, f"make_{kind}")(peer.name, ROOM, USER)
        assert (made.room_version.identifier, made.event) == ("10", {"type": "m.room.member"})
        (asked,) = peer.received
        assert asked.path == {"room_id": ROOM, "user_id": USER}
        assert asked.query == ({} if kind == "leave" else {"ver": list(ROOM_VERSIONS)})
        assert not peer.faults

    async def test_a_template_of_an_old_server(self, rooms: FederationRooms, peer: Peer) -> None:
        peer.answers[f"GET {V1}/make_join/{{room_id}}/{{user_id}}"] = {"event": {}}
        assert (await rooms.make_join(peer.name, ROOM, USER)).room_version.identifier == "1"

    @pytest.mark.parametrize(
        "answer", [[], "x", {}, {"event": []}, {"event": {}, "room_version": 10}, {"event": {}, "room_version": "99"}]
    )
    async def test_wrong_templates(self, rooms: FederationRooms, peer: Peer, answer: Any) -> None:
        peer.answers[f"GET {V1}/make_join/{{room_id}}/{{user_id}}"] = lambda _: web.json_response(answer)
        with pytest.raises(RemoteUnavailable):
            await rooms.make_join(peer.name, ROOM, USER)

    async def test_a_refusal_keeps_its_code(self, rooms: FederationRooms, peer: Peer) -> None:
        refusal = {"errcode": "M_INCOMPATIBLE_ROOM_VERSION", "error": "-", "room_version": "x"}
        peer.answers[f"GET {V1}/make_join/{{room_id}}/{{user_id}}"] = (400, refusal)
        with pytest.raises(RemoteRefused) as caught:
            await rooms.make_join(peer.name, ROOM, USER)
        assert (caught.value.remote_errcode, caught.value.extra) == (refusal["errcode"], {"room_version": "x"})

    @pytest.mark.parametrize("omit", [True, False])
    async def test_joins(self, rooms: FederationRooms, peer: Peer, omit: bool) -> None:
        answer = {
            "state": [{"type": "a"}, "odd", None],
            "auth_chain": [{"type": "b"}],
            "event": {"type": "c"},
            "members_omitted": omit,
            "servers_in_room": ["a.test", "a.test", "!", 5, "b.test:1"],
        }
        peer.answers[f"PUT {V2}/send_join/{{room_id}}/{{event_id}}"] = answer
        pdu = member_event()
        sent = await rooms.send_join(peer.name, pdu, omit_members=omit)
        assert (sent.state, sent.auth_chain, sent.event) == ([{"type": "a"}], [{"type": "b"}], {"type": "c"})
        assert (sent.members_omitted, list(sent.servers_in_room)) == (omit, ["a.test", "b.test:1"])
        (asked,) = peer.received
        assert asked.path == {"room_id": ROOM, "event_id": EVENT}
        assert asked.query == {"omit_members": ["true" if omit else "false"]}
        assert asked.body == pdu.json

    @pytest.mark.parametrize("answer", [b"[]", b'{"state":[]}', b'{"state":{},"auth_chain":[]}', b"{", b"nonsense"])
    async def test_wrong_answers_to_joins(self, rooms: FederationRooms, peer: Peer, answer: bytes) -> None:
        peer.answers[f"PUT {V2}/send_join/{{room_id}}/{{event_id}}"] = lambda _: web.Response(body=answer)
        with pytest.raises(RemoteUnavailable):
            await rooms.send_join(peer.name, member_event(), omit_members=True)

    async def test_a_large_room(self, rooms: FederationRooms, peer: Peer) -> None:
        state = [{"type": "m.room.member", "state_key": f"@{n}:x", "content": {"n": "ä" * 100}} for n in range(20_000)]
        body = json.dumps({"state": state, "auth_chain": state[:10]}).encode()
        peer.answers[f"PUT {V2}/send_join/{{room_id}}/{{event_id}}"] = lambda _: web.Response(body=body)
        sent = await rooms.send_join(peer.name, member_event(), omit_members=False)
        assert (sent.state, sent.auth_chain, sent.event) == (state, state[:10], None)

    async def test_old_servers_know_only_the_first_version(self, rooms: FederationRooms, peer: Peer) -> None:
        body = {"state": [{"type": "a"}], "auth_chain": []}
        for refusal in (UNRECOGNIZED, (404, "<html>"), (405, {"errcode": "M_UNRECOGNIZED"})):
            peer.answers |= {
                f"PUT {V2}/send_join/{{room_id}}/{{event_id}}": refusal,
                f"PUT {V1}/send_join/{{room_id}}/{{event_id}}": lambda _: web.json_response([200, body]),
                f"PUT {V2}/send_leave/{{room_id}}/{{event_id}}": refusal,
                f"PUT {V1}/send_leave/{{room_id}}/{{event_id}}": lambda _: web.json_response([200, {}]),
            }
            assert (await rooms.send_join(peer.name, member_event(), omit_members=True)).state == [{"type": "a"}]
            await rooms.send_leave(peer.name, member_event())

    async def test_other_refusals_are_final(self, rooms: FederationRooms, peer: Peer) -> None:
        for operation in ("send_join", "send_leave"):
            peer.answers[f"PUT {V2}/{operation}/{{room_id}}/{{event_id}}"] = (404, {"errcode": "M_NOT_FOUND"})
        with pytest.raises(RemoteRefused):
            await rooms.send_join(peer.name, member_event(), omit_members=True)
        with pytest.raises(RemoteRefused):
            await rooms.send_leave(peer.name, member_event())
        assert len(peer.received) == 2

    async def test_knocks(self, rooms: FederationRooms, peer: Peer) -> None:
        state = [{"type": "m.room.create"}, 5] + [{"n": n} for n in range(1000)]
        peer.answers[f"PUT {V1}/send_knock/{{room_id}}/{{event_id}}"] = {"knock_room_state": state}
        told = await rooms.send_knock(peer.name, member_event())
        assert told[0] == {"type": "m.room.create"}
        assert all(isinstance(event, dict) for event in told)
        assert len(told) < 300

    async def test_invitations(self, rooms: FederationRooms, peer: Peer) -> None:
        pdu, stripped = member_event(), [{"type": "m.room.create"}]
        peer.answers[f"PUT {V2}/invite/{{room_id}}/{{event_id}}"] = lambda request: {"event": request.body["event"]}
        assert await rooms.invite(peer.name, pdu, invite_room_state=stripped) == pdu.json
        (asked,) = peer.received
        assert asked.body == {"room_version": "10", "event": pdu.json, "invite_room_state": stripped}

    @pytest.mark.parametrize(("version", "falls_back"), [("1", True), ("2", True), ("3", False), ("10", False)])
    async def test_old_invitations(self, rooms: FederationRooms, peer: Peer, version: str, falls_back: bool) -> None:
        peer.answers |= {
            f"PUT {V2}/invite/{{room_id}}/{{event_id}}": UNRECOGNIZED,
            f"PUT {V1}/invite/{{room_id}}/{{event_id}}": lambda r: web.json_response([200, {"event": r.body}]),
        }
        pdu = member_event(version, unsigned={"age": 1})
        if not falls_back:
            with pytest.raises(RemoteRefused):
                await rooms.invite(peer.name, pdu, invite_room_state=[])
            return
        signed = await rooms.invite(peer.name, pdu, invite_room_state=[{"type": "m.room.name"}])
        assert signed == {**pdu.json, "unsigned": {"age": 1, "invite_room_state": [{"type": "m.room.name"}]}}

    async def test_third_party_invitations(self, rooms: FederationRooms, peer: Peer) -> None:
        peer.answers[f"PUT {V1}/exchange_third_party_invite/{{room_id}}"] = {}
        await rooms.exchange_third_party_invite(peer.name, ROOM, {"type": "m.room.member"})
        assert peer.received[0].path == {"room_id": ROOM}


class TestEvents:
    """Events and states, of a room that the peer really has."""

    async def test_everything_of_a_room(self, events: FederationEvents, peer: Peer) -> None:
        room: PeerRoom = peer.create_room(peer.user("alice"), version="10")
        last = room.send(peer.user("alice"), "m.room.message", {"body": "hi"})
        assert await events.event(peer.name, last.event_id) == last.json
        state = await events.state(peer.name, room.room_id, last.event_id)
        ids = await events.state_ids(peer.name, room.room_id, last.event_id)
        assert len(state.pdus) == len(ids.pdu_ids) > 3
        assert len(state.auth_chain) == len(ids.auth_chain_ids)
        assert await events.event_auth(peer.name, room.room_id, last.event_id)
        backfilled = await events.backfill(peer.name, room.room_id, [last.event_id], limit=3)
        assert len(backfilled) == 3
        assert last.json in backfilled
        missing = await events.get_missing_events(peer.name, room.room_id, earliest=[], latest=[last.event_id], limit=2)
        assert len(missing) == 2
        assert not peer.faults

    async def test_what_is_asked(self, events: FederationEvents, peer: Peer) -> None:
        peer.answers |= {
            f"GET {V1}/backfill/{{room_id}}": {"pdus": [{"n": n} for n in range(10)]},
            f"POST {V1}/get_missing_events/{{room_id}}": {"events": [None, {"n": 1}, {"n": 2}]},
        }
        two = [EVENT, EventId.parse("$2")]
        assert len(await events.backfill(peer.name, ROOM, two, limit=5)) == 5
        found = await events.get_missing_events(peer.name, ROOM, earliest=[EVENT], latest=two, limit=2, min_depth=7)
        assert found == [{"n": 1}]
        backfill, missing = peer.received
        assert backfill.query == {"v": two, "limit": ["5"]}
        wanted = {"earliest_events": [EVENT], "latest_events": two, "limit": 2, "min_depth": 7}
        assert missing.body == wanted

    @pytest.mark.parametrize("answer", [{}, {"pdus": []}, {"pdus": [{}, {}]}, {"pdus": ["x"]}, {"pdus": {}}, []])
    async def test_wrong_events(self, events: FederationEvents, peer: Peer, answer: Any) -> None:
        peer.answers[f"GET {V1}/event/{{event_id}}"] = lambda _: web.json_response(answer)
        with pytest.raises(RemoteUnavailable):
            await events.event(peer.name, EVENT)

    @pytest.mark.parametrize(
        "answer",
        [{}, {"pdu_ids": []}, {"pdu_ids": ["x"], "auth_chain_ids": []}, {"pdu_ids": [1], "auth_chain_ids": []}],
    )
    async def test_wrong_state_ids(self, events: FederationEvents, peer: Peer, answer: Any) -> None:
        peer.answers[f"GET {V1}/state_ids/{{room_id}}"] = answer
        with pytest.raises(RemoteUnavailable):
            await events.state_ids(peer.name, ROOM, EVENT)

    async def test_timestamp_to_event(self, events: FederationEvents, peer: Peer) -> None:
        path = f"GET {V1}/timestamp_to_event/{{room_id}}"
        peer.answers[path] = {"event_id": EVENT, "origin_server_ts": 12}
        assert await events.timestamp_to_event(peer.name, ROOM, ts=10, direction="f") == (EVENT, 12)
        assert peer.received[0].query == {"ts": ["10"], "dir": ["f"]}
        for answer in ({"event_id": EVENT}, {"origin_server_ts": 1}, {"event_id": "x", "origin_server_ts": 1}):
            peer.answers[path] = answer
            with pytest.raises(RemoteUnavailable):
                await events.timestamp_to_event(peer.name, ROOM, ts=10, direction="b")


class TestDirectories:
    """Aliases, spaces, lists of rooms, profiles, policy servers."""

    async def test_aliases(self, ways: Ways, peer: Peer) -> None:
        directories = FederationDirectories(ways.client)
        alias = RoomAlias.parse(f"#ä b:{peer.name}")
        path = f"GET {V1}/query/directory"
        peer.answers[path] = {"room_id": ROOM, "servers": ["a.test", None]}
        assert await directories.find_room(alias) == (ROOM, ["a.test"])
        assert peer.received[0].query == {"room_alias": [alias]}
        for answer in ((404, {"errcode": "M_NOT_FOUND"}), {"room_id": "x"}, {}, (503, {})):
            peer.answers[path] = answer
            assert await directories.find_room(alias) is None
        assert await directories.find_room(RoomAlias.parse("#a:127.0.0.1:1")) is None

    async def test_spaces(self, ways: Ways, peer: Peer) -> None:
        directories = FederationDirectories(ways.client)
        path = f"GET {V1}/hierarchy/{{room_id}}"
        room = {"room_id": ROOM, "children_state": []}
        children = [{"room_id": "!c:x"}, {"room_id": 5}, "x"]
        peer.answers[path] = {"room": room, "children": children, "inaccessible_children": ["!d:x", 1]}
        found = await directories.hierarchy(peer.name, ROOM, suggested_only=True)
        assert (found.room, found.children, found.inaccessible_children) == (room, [{"room_id": "!c:x"}], ["!d:x"])
        assert peer.received[0].query == {"suggested_only": ["true"]}
        wrong: list[dict[str, Any]] = [{}, {"room": {"room_id": "!other:x"}}, {"room": []}]
        for answer in wrong:
            peer.answers[path] = answer
            with pytest.raises(RemoteUnavailable):
                await directories.hierarchy(peer.name, ROOM, suggested_only=False)

    async def test_public_rooms(self, ways: Ways, peer: Peer) -> None:
        directory = FederationPublicRooms(ways.client)
        answer = {
            "chunk": [{"room_id": ROOM, "num_joined_members": 1}, {"name": "no id"}, 5],
            "next_batch": "n",
            "prev_batch": 5,
            "total_room_count_estimate": 2,
            "other": "x",
        }
        peer.answers |= {f"{method} {V1}/publicRooms": answer for method in ("GET", "POST")}
        page = await directory.public_rooms(peer.name, PublicRoomsRequest(limit=10, since="s", all_networks=True))
        assert page == {
            "chunk": [{"room_id": ROOM, "num_joined_members": 1}],
            "next_batch": "n",
            "total_room_count_estimate": 2,
        }
        searched = PublicRoomsRequest(limit=10, search_term="x", room_types=[None, "m.space"])
        await directory.public_rooms(peer.name, searched)
        plain, filtered = peer.received
        assert plain.query == {"limit": ["10"], "since": ["s"], "include_all_networks": ["true"]}
        assert filtered.body == {
            "limit": 10,
            "include_all_networks": False,
            "filter": {"generic_search_term": "x", "room_types": [None, "m.space"]},
        }
        peer.answers[f"GET {V1}/publicRooms"] = {"chunk": {}}
        with pytest.raises(RemoteUnavailable):
            await directory.public_rooms(peer.name, PublicRoomsRequest(limit=10))

    async def test_profiles(self, ways: Ways, peer: Peer) -> None:
        profiles = FederationProfiles(ways.client)
        user = peer.user("bob")
        path = f"GET {V1}/query/profile"
        peer.answers[path] = {"displayname": "Bob", "avatar_url": None}
        assert await profiles.query_profile(user) == {"displayname": "Bob"}
        assert await profiles.query_profile(user, field="displayname") == {"displayname": "Bob"}
        assert [request.query for request in peer.received] == [
            {"user_id": [user]},
            {"user_id": [user], "field": ["displayname"]},
        ]
        with pytest.raises(NotFound):
            await profiles.query_profile(user, field="avatar_url")
        for answer in ((404, {"errcode": "M_NOT_FOUND"}), (403, {}), lambda _: web.json_response([]), (503, {})):
            peer.answers[path] = answer
            with pytest.raises(NotFound):
                await profiles.query_profile(user)

    async def test_policy_servers(self, ways: Ways, peer: Peer) -> None:
        policy_servers = FederationPolicyServers(ways.client)
        signatures = {peer.name: {"ed25519:policy_server": secrets.token_hex(4)}}
        peer.answers["POST /_matrix/policy/v1/sign"] = {**signatures, "odd": 5}
        pdu = member_event()
        assert await policy_servers.sign(peer.name, pdu) == signatures
        assert peer.received[0].body == pdu.json
        peer.answers["POST /_matrix/policy/v1/sign"] = (400, {"errcode": "M_FORBIDDEN", "error": "spam"})
        with pytest.raises(RemoteRefused):
            await policy_servers.sign(ServerName.parse(peer.name), pdu)
