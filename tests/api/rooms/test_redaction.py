"""PUT /rooms/{roomId}/redact/{eventId}/{txnId}."""

from typing import Any

import orjson
import pytest

from homeserver.core.ids import EventId
from homeserver.core.room_versions import ROOM_VERSIONS
from storage.events import find_event, list_pdus
from tests.api.rooms.api import RoomsApi, User


def _refused(reply: Any, errcode: str = "M_FORBIDDEN", status: int = 403) -> None:
    assert (reply.status, reply.json["errcode"]) == (status, errcode), reply.body


async def _client_form(api: RoomsApi, event_id: str) -> Any:
    async with api.db.connection() as conn:
        event = await find_event(conn, EventId(event_id))
    assert event is not None
    return orjson.loads(event.client_json)


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_a_redaction_takes_the_content(api: RoomsApi, alice: User, version: str) -> None:
    room_id = await alice.create(room_version=version)
    event_id = await alice.send(room_id, "secret")
    reply = await alice.redact(room_id, event_id, reason="oops")
    assert reply.status == 200
    form = await _client_form(api, event_id)
    assert form["content"] == {}
    because = form["unsigned"]["redacted_because"]
    assert because["event_id"] == reply.json["event_id"]
    assert because["redacts"] == because["content"]["redacts"] == event_id
    assert because["content"]["reason"] == "oops"
    async with api.db.connection() as conn:
        texts = await conn.fetch("SELECT client_json || federation_json AS text FROM events")
        stored = await find_event(conn, EventId(event_id))
        assert stored is not None
        pdu = (await list_pdus(conn, [stored.event_nid]))[stored.event_nid]
    assert not any("secret" in row["text"] for row in texts)
    assert stored.redacted_by == reply.json["event_id"]
    assert pdu.content == {}
    redaction = await _redaction_pdu(api, reply.json["event_id"])
    assert ("redacts" in redaction) == (int(version) < 11)
    assert ("redacts" in redaction["content"]) == (int(version) >= 11)


async def _redaction_pdu(api: RoomsApi, event_id: str) -> Any:
    async with api.db.connection() as conn:
        event = await find_event(conn, EventId(event_id))
        assert event is not None
        return (await list_pdus(conn, [event.event_nid]))[event.event_nid].json


@pytest.mark.parametrize("version", ["10", "12"])
async def test_redacting_through_send(api: RoomsApi, alice: User, version: str) -> None:
    room_id = await alice.create(room_version=version)
    event_id = await alice.send(room_id, "secret")
    content = {"redacts": event_id, "reason": "oops", "org.x": 1}
    reply = await alice.send_event(room_id, "m.room.redaction", content, txn_id="1")
    assert reply.status == 200
    assert (await _client_form(api, event_id))["content"] == {}
    assert (await _client_form(api, reply.json["event_id"]))["content"] == content
    again = await alice.send_event(room_id, "m.room.redaction", content, txn_id="1")
    assert again.json == reply.json
    for redacts in (None, 1, "nothing"):
        refused = await alice.send_event(room_id, "m.room.redaction", {"redacts": redacts})
        assert refused.status == 400
    _refused(await alice.send_event(room_id, "m.room.redaction", {}), "M_BAD_JSON", 400)


async def test_transaction_ids_of_redactions_are_their_own(api: RoomsApi, alice: User) -> None:
    room_id = await alice.create()
    event_id = (await alice.send_event(room_id, "m.room.message", {"body": "x"}, txn_id="1")).json["event_id"]
    path = f"/rooms/{room_id}/redact/{event_id}/1"
    first = await alice.call("PUT", path)
    assert first.json["event_id"] != event_id
    assert (await alice.call("PUT", path)).json == first.json


async def test_who_may_redact(api: RoomsApi, alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    await carol.join(room_id)
    event_id = await bob.send(room_id)
    _refused(await carol.redact(room_id, event_id))
    assert (await bob.redact(room_id, event_id)).status == 200
    other = await bob.send(room_id)
    assert (await alice.redact(room_id, other)).status == 200
    third = await bob.send(room_id)
    admin = await api.user("admin", is_admin=True)
    _refused(await admin.redact(room_id, third))
    await admin.join(room_id)
    assert (await admin.redact(room_id, third)).status == 200
    stranger = await api.user("stranger")
    _refused(await stranger.redact(room_id, "$unknown"))
    _refused(await stranger.redact(room_id, await bob.send(room_id)))
    await alice.set_state(room_id, "m.room.power_levels", {"events": {"m.room.redaction": 10}})
    _refused(await bob.redact(room_id, await bob.send(room_id)))


async def test_what_cannot_be_redacted(alice: User) -> None:
    room_id, other_room_id = await alice.create(), await alice.create()
    create = (await alice.all_state(room_id))[("m.room.create", "")]["event_id"]
    _refused(await alice.redact(room_id, create))
    _refused(await alice.redact(room_id, "$unknown"), "M_INVALID_PARAM", 400)
    _refused(await alice.redact(room_id, "unknown"), "M_INVALID_PARAM", 400)
    elsewhere = await alice.send(other_room_id)
    _refused(await alice.redact(room_id, elsewhere), "M_INVALID_PARAM", 400)


async def test_redacting_twice_keeps_the_first_reason(api: RoomsApi, alice: User) -> None:
    room_id = await alice.create()
    event_id = await alice.send(room_id)
    first = await alice.redact(room_id, event_id, reason="first")
    second = await alice.redact(room_id, event_id, reason="second")
    assert second.status == 200
    because = (await _client_form(api, event_id))["unsigned"]["redacted_because"]
    assert because["event_id"] == first.json["event_id"]


async def test_redacting_state(api: RoomsApi, alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat", name="rude")
    await bob.join(room_id)
    await bob.set_state(room_id, "m.room.member", {"membership": "join", "displayname": "rude"}, bob.user_id)
    state = await alice.all_state(room_id)
    for slot in (("m.room.name", ""), ("m.room.member", str(bob.user_id))):
        assert (await alice.redact(room_id, state[slot]["event_id"])).status == 200
    assert (await alice.get_state(room_id, "m.room.name")).json == {}
    assert (await alice.get_state(room_id, "m.room.member", bob.user_id)).json == {"membership": "join"}
    assert (await alice.all_state(room_id))["m.room.name", ""]["content"] == {}
    async with api.db.connection() as conn:
        assert await conn.fetchval("SELECT name FROM room_summaries JOIN rooms USING (room_nid)") is None
    await bob.send(room_id)


async def test_nothing_of_redacted_state_is_left_in_what_followed(api: RoomsApi, alice: User) -> None:
    room_id = await alice.create(name="rude")
    first = (await alice.get_state(room_id, "m.room.name", query="?format=event")).json["event_id"]
    await alice.set_state(room_id, "m.room.name", {"name": "nice"})
    await alice.set_state(room_id, "m.room.name", {"name": "nicer"})
    await alice.redact(room_id, first)
    async with api.db.connection() as conn:
        texts = await conn.fetch("SELECT client_json || federation_json AS text FROM events")
    assert not any("rude" in row["text"] for row in texts)
    assert (await alice.get_state(room_id, "m.room.name")).json == {"name": "nicer"}
    unsigned = (await alice.get_state(room_id, "m.room.name", query="?format=event")).json["unsigned"]
    assert unsigned["prev_content"] == {"name": "nice"}


async def test_redacting_a_redaction_hides_its_reason(api: RoomsApi, alice: User) -> None:
    room_id = await alice.create()
    event_id = await alice.send(room_id)
    redaction = (await alice.redact(room_id, event_id, reason="rude")).json["event_id"]
    await alice.redact(room_id, redaction)
    form = await _client_form(api, event_id)
    assert form["unsigned"]["redacted_because"]["event_id"] == redaction
    assert "reason" not in form["unsigned"]["redacted_because"]["content"]
    assert form["content"] == {}


async def test_a_redacted_event_relates_to_nothing(api: RoomsApi, alice: User) -> None:
    room_id = await alice.create()
    root = await alice.send(room_id)
    child = await alice.send(room_id, relates_to={"rel_type": "m.thread", "event_id": root})
    await alice.redact(room_id, child)
    async with api.db.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM relations") == 0
        event = await find_event(conn, EventId(child))
    assert event is not None
    assert event.thread_root is None
