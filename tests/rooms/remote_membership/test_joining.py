"""Joining rooms of other servers: the room is there, whole and consistent, and the user's client is told."""

from typing import Any

import pytest

from homeserver.core.errors import RemoteUnavailable
from homeserver.core.ids import RoomAlias, RoomId, UserId
from homeserver.core.pdu import Pdu
from storage.database import Database
from storage.events import list_pdus
from storage.rooms import find_room
from storage.state import StateStore
from tests.api.server import Client
from tests.api.server import refused as refused_by_us
from tests.rooms.remote_membership.conftest import Serve
from tests.rooms.remote_membership.resident import DORA, ELSEWHERE, RESIDENT, join, open_room, refused

VERSIONS = ("1", "6", "10", "11", "12")


async def enter(client: Client, room_id: str, *via: str) -> Any:
    """Joins a room through some servers."""
    return await client.call("POST", f"/join/{room_id}", {}, via=list(via))


async def check_whole(db: Database, room_id: RoomId) -> None:
    """The current state stands in all places alike, and the members are counted rightly."""
    states = StateStore()
    async with db.connection() as conn:
        room = await find_room(conn, room_id)
        assert room is not None
        assert room.state_id is not None
        rows = await conn.fetch("SELECT slot_id, event_nid FROM current_state WHERE room_nid = $1", room.room_nid)
        current = {row["slot_id"]: row["event_nid"] for row in rows}
        assert (await states.load(conn, room.state_id)).entries() == current
        history = await conn.fetchval(
            "SELECT state_id FROM state_history WHERE room_nid = $1 ORDER BY position DESC, serial DESC LIMIT 1",
            room.room_nid,
        )
        assert history == room.state_id
        in_state = await conn.fetch(
            "SELECT state_key, client_json::jsonb->'content'->>'membership' AS membership FROM events "
            "WHERE event_nid = ANY ($1) AND type = 'm.room.member'",
            list(current.values()),
        )
        members = await conn.fetch("SELECT user_id, membership FROM memberships WHERE room_nid = $1", room.room_nid)
        known = {row["state_key"]: row["membership"] for row in in_state}
        assert {row["user_id"]: row["membership"] for row in members if row["user_id"] in known} == known
        assert {row["user_id"] for row in members if row["membership"] not in ("leave", "ban")} <= known.keys()
        (summary,) = await conn.fetch("SELECT * FROM room_summaries WHERE room_nid = $1", room.room_nid)
        assert summary["joined_members"] == sum(membership == "join" for membership in known.values())
        assert summary["local_joined_members"] == sum(
            membership == "join" and user_id.endswith(":test") for user_id, membership in known.items()
        )


async def last_event(db: Database) -> Pdu:
    """What was stored last."""
    async with db.connection() as conn:
        event_nid = await conn.fetchval("SELECT max(event_nid) FROM events")
        return (await list_pdus(conn, [event_nid]))[event_nid]


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_room_is_there_after_the_join(serve: Serve, db: Database, version: str) -> None:
    resident = open_room(version, members=3)
    resident.room.say(DORA, "before")
    async with serve(resident) as site:
        alice = await site.register("alice")
        since = (await alice.get("/sync"))["next_batch"]
        answer = await enter(alice, resident.room.room_id, RESIDENT)
        assert (answer.status, answer.json) == (200, {"room_id": resident.room.room_id})
        told = (await alice.get("/sync", since=since))["rooms"]["join"][resident.room.room_id]
        shown = {(event["type"], event["state_key"]) for event in told["state"]["events"]}
        assert {("m.room.create", ""), ("m.room.name", ""), ("m.room.member", DORA)} <= shown
        assert [event["sender"] for event in told["timeline"]["events"]] == [alice.user_id]
        assert told["timeline"]["limited"]
        assert told["summary"]["m.joined_member_count"] == 5
        members = await alice.get(f"/rooms/{resident.room.room_id}/joined_members")
        assert len(members["joined"]) == 5
        await check_whole(db, resident.room.room_id)
    (sent,) = resident.sent
    assert resident.room.membership(UserId(alice.user_id)) == "join"
    assert sent.json["signatures"].keys() == {"test"}


async def test_a_template_need_not_tell_the_hashes_of_events(serve: Serve) -> None:
    """In room versions 1 and 2 they stand beside the ids, but a Synapse leaves some out."""
    resident = open_room("1")
    hashed: list[Any] = []

    def without_hashes(event: dict[str, Any]) -> dict[str, Any]:
        hashed[:] = event["auth_events"]
        return event | {"auth_events": [[event_id, {}] for event_id, _ in event["auth_events"]]}

    resident.template = without_hashes
    async with serve(resident) as site:
        answer = await enter(await site.register("alice"), resident.room.room_id, RESIDENT)
        assert answer.status == 200, answer.json
    (sent,) = resident.sent
    assert sent.json["auth_events"] == [[event_id, {}] for event_id, _ in hashed]


async def test_what_lies_before_the_join_is_noted_as_missing(serve: Serve, db: Database) -> None:
    resident = open_room()
    last = resident.room.say(DORA, "before")
    async with serve(resident) as site:
        await enter(await site.register("alice"), resident.room.room_id, RESIDENT)
    async with db.connection() as conn:
        assert [row["event_id"] for row in await conn.fetch("SELECT event_id FROM missing_events")] == [last.event_id]


async def test_members_of_the_room_can_be_sent_to_at_once(serve: Serve, db: Database) -> None:
    resident = open_room()
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id, RESIDENT)
        sent = await alice.put(f"/rooms/{resident.room.room_id}/send/m.room.message/1", {"body": "hi"})
        event = await alice.get(f"/rooms/{resident.room.room_id}/event/{sent['event_id']}")
        assert event["content"] == {"body": "hi"}
        await check_whole(db, resident.room.room_id)


async def test_servers_are_tried_in_turn(serve: Serve) -> None:
    resident = open_room()
    resident.refusals[(ELSEWHERE, "make_join")] = refused("M_UNABLE_TO_GRANT_JOIN", 400)
    async with serve(resident) as site:
        alice = await site.register("alice")
        answer = await enter(alice, resident.room.room_id, "gone.example", ELSEWHERE, RESIDENT, RESIDENT, "test")
        assert answer.status == 200
    assert [server for server, method in resident.asked if method == "make_join"] == [
        "gone.example",
        ELSEWHERE,
        RESIDENT,
    ]


@pytest.mark.parametrize(
    ("theirs", "status", "errcode"),
    [
        (refused("M_FORBIDDEN"), 403, "M_FORBIDDEN"),
        (refused("M_INCOMPATIBLE_ROOM_VERSION", 400, room_version="99"), 400, "M_INCOMPATIBLE_ROOM_VERSION"),
        (refused("M_UNABLE_TO_GRANT_JOIN", 400), 400, "M_UNABLE_TO_GRANT_JOIN"),
        (refused("M_UNABLE_TO_AUTHORISE_JOIN", 400), 400, "M_UNABLE_TO_AUTHORISE_JOIN"),
        (refused("M_NOT_FOUND", 404), 404, "M_NOT_FOUND"),
        # What is between the servers alone: a client must not take it for its own session or request.
        (refused("M_UNKNOWN_TOKEN", 401), 502, "M_UNKNOWN"),
        (refused("M_INVALID_PARAM", 400), 502, "M_UNKNOWN"),
        (refused("M_MISSING_PARAM", 400), 502, "M_UNKNOWN"),
        (RemoteUnavailable("away"), 502, "M_UNKNOWN"),
    ],
)
async def test_the_most_telling_error_is_told(serve: Serve, theirs: Exception, status: int, errcode: str) -> None:
    resident = open_room()
    resident.refusals[(RESIDENT, "make_join")] = theirs
    async with serve(resident) as site:
        alice = await site.register("alice")
        error = refused_by_us(await enter(alice, resident.room.room_id, "gone.example", RESIDENT), status, errcode)
    if errcode == "M_INCOMPATIBLE_ROOM_VERSION":
        assert error["room_version"] == "99"


async def test_a_room_without_any_server_is_not_found(serve: Serve) -> None:
    async with serve(open_room()) as site:
        alice = await site.register("alice")
        refused_by_us(await enter(alice, "!nowhere:test"), 404, "M_NOT_FOUND")


async def test_a_banned_user_is_told_so(serve: Serve, db: Database) -> None:
    resident = open_room()
    alice_id = UserId("@alice:test")
    resident.room.send(DORA, "m.room.member", {"membership": "ban"}, state_key=alice_id)
    async with serve(resident) as site:
        alice = await site.register("alice")
        refused_by_us(await enter(alice, resident.room.room_id, RESIDENT), 403, "M_FORBIDDEN")
        assert "rooms" not in await alice.get("/sync")
    async with db.connection() as conn:
        assert not await conn.fetchval("SELECT count(*) FROM membership_changes")


async def test_the_servers_of_an_alias_are_asked(serve: Serve) -> None:
    resident = open_room()
    alias = RoomAlias("#dora:elsewhere.example")
    resident.aliases[alias] = (resident.room.room_id, [RESIDENT])
    async with serve(resident) as site:
        alice = await site.register("alice")
        assert (await alice.call("POST", f"/join/{alias}", {})).json == {"room_id": resident.room.room_id}


async def test_the_older_name_of_via_counts(serve: Serve) -> None:
    resident = open_room("12")
    async with serve(resident) as site:
        alice = await site.register("alice")
        reply = await alice.call("POST", f"/join/{resident.room.room_id}", {}, server_name=[RESIDENT])
        assert reply.status == 200
        reply = await alice.call("POST", f"/join/{resident.room.room_id}", {}, via=["no server"])
        refused_by_us(reply, 400, "M_INVALID_PARAM")


async def test_a_second_user_joins_here(serve: Serve, db: Database) -> None:
    resident = open_room()
    async with serve(resident) as site:
        alice, bob = await site.register("alice"), await site.register("bob")
        await enter(alice, resident.room.room_id, RESIDENT)
        assert (await enter(bob, resident.room.room_id)).status == 200
        await check_whole(db, resident.room.room_id)
    assert [method for _, method in resident.asked] == ["make_join", "send_join"]


async def test_a_room_is_entered_again_after_everybody_has_left(serve: Serve, db: Database) -> None:
    resident = open_room()
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, resident.room.room_id, RESIDENT)
        await alice.post(f"/rooms/{resident.room.room_id}/leave")
        resident.room.receive(await last_event(db))
        resident.room.send(DORA, "m.room.name", {"name": "Renamed"}, state_key="")
        emil = UserId("@emil:resident.example")
        join(resident.room, emil)
        since = (await alice.get("/sync"))["next_batch"]
        # Its own servers are known from the last time.
        assert (await alice.call("POST", f"/rooms/{resident.room.room_id}/join", {})).status == 200
        told = (await alice.get("/sync", since=since))["rooms"]["join"][resident.room.room_id]
        names = [event["content"]["name"] for event in told["state"]["events"] if event["type"] == "m.room.name"]
        assert names == ["Renamed"]
        # What was said before stands on the other side of a gap.
        assert [event["content"]["membership"] for event in told["timeline"]["events"]] == ["join"]
        assert told["timeline"]["limited"]
        assert emil in (await alice.get(f"/rooms/{resident.room.room_id}/joined_members"))["joined"]
        await check_whole(db, resident.room.room_id)
    async with db.connection() as conn:
        rows = await conn.fetch("SELECT topological FROM events WHERE topological IS NOT NULL ORDER BY topological")
    places = [row["topological"] for row in rows]
    assert places[-1] - places[-2] >= 2**20, "there is room for what was missed"


async def test_guests_cannot_enter_rooms_of_other_servers(serve: Serve) -> None:
    resident = open_room()
    async with serve(resident) as site:
        reply = await site.request("POST", "/register", json={}, query={"kind": "guest"})
        guest = site.client(reply.json)
        reply = await enter(guest, resident.room.room_id, RESIDENT)
        refused_by_us(reply, 403, "M_GUEST_ACCESS_FORBIDDEN")
    assert not resident.asked
