"""PUT /rooms/{roomId}/send/{eventType}/{txnId}."""

import asyncio
from typing import Any

import orjson
import pytest

from homeserver.core.ids import EventId
from homeserver.core.room_versions import ROOM_VERSIONS
from storage.events import StoredEvent, find_event
from tests.api.rooms.api import RoomsApi, User


def _refused(reply: Any, errcode: str = "M_FORBIDDEN", status: int = 403) -> None:
    assert (reply.status, reply.json["errcode"]) == (status, errcode), reply.body


async def _stored(api: RoomsApi, event_id: str) -> StoredEvent:
    async with api.db.connection() as conn:
        event = await find_event(conn, EventId(event_id))
    assert event is not None
    return event


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_a_message_is_stored_as_it_was_sent(api: RoomsApi, alice: User, version: str) -> None:
    room_id = await alice.create(room_version=version)
    content = {"msgtype": "m.text", "body": "h\u00e9\u0000\U0001f600", "org.x": [1, -(2**53 - 1), None, {"a": True}]}
    reply = await alice.send_event(room_id, "m.room.message", content)
    assert reply.status == 200
    event = await _stored(api, reply.json["event_id"])
    client_form = orjson.loads(event.client_json)
    assert client_form["content"] == content
    assert client_form["sender"] == alice.user_id
    assert client_form["room_id"] == room_id
    assert client_form["event_id"] == reply.json["event_id"]
    assert client_form["unsigned"] == {}


async def test_a_repeated_request_makes_one_event(api: RoomsApi, alice: User) -> None:
    room_id, other_room_id = await alice.create(), await alice.create()
    first = await alice.send_event(room_id, "m.room.message", {"body": "a"}, txn_id="1 /\u00e9")
    again = await alice.send_event(room_id, "m.room.message", {"body": "b"}, txn_id="1 /\u00e9")
    assert first.json == again.json
    assert (await _stored(api, first.json["event_id"])).content == {"body": "a"}
    other_device = api.other_device(alice)
    elsewhere = await alice.send_event(other_room_id, "m.room.message", {"body": "a"}, txn_id="1 /\u00e9")
    by_other_device = await other_device.send_event(room_id, "m.room.message", {"body": "a"}, txn_id="1 /\u00e9")
    assert len({reply.json["event_id"] for reply in (first, elsewhere, by_other_device)}) == 3


async def test_a_request_may_be_repeated_when_it_would_not_be_allowed_any_more(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    first = await bob.send_event(room_id, "m.room.message", {"body": "a"}, txn_id="1")
    await alice.post(room_id, "ban", user_id=bob.user_id)
    again = await bob.send_event(room_id, "m.room.message", {"body": "a"}, txn_id="1")
    assert (again.status, again.json) == (200, first.json)
    _refused(await bob.send_event(room_id, "m.room.message", {"body": "a"}, txn_id="2"))


async def test_concurrent_repetitions_make_one_event(api: RoomsApi, alice: User) -> None:
    room_id = await alice.create()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(alice.send_event(room_id, "m.room.message", {"body": "a"}, txn_id="1")) for _ in range(8)
        ]
    assert len({task.result().json["event_id"] for task in tasks}) == 1
    async with api.db.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM events WHERE type = 'm.room.message'") == 1


async def test_who_may_send(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create(preset="public_chat", invite=[carol.user_id])
    for user in (bob, carol):
        _refused(await user.send_event(room_id, "m.room.message", {"body": "a"}))
    _refused(await alice.send_event("!nowhere:example.org", "m.room.message", {"body": "a"}))
    await bob.join(room_id)
    await alice.set_state(room_id, "m.room.power_levels", {"events": {"m.room.message": 10}})
    _refused(await bob.send_event(room_id, "m.room.message", {"body": "a"}))
    await alice.set_state(room_id, "m.room.power_levels", {"users": {str(bob.user_id): 10}})
    await bob.send(room_id)


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        (b"", 400, "M_NOT_JSON"),
        (b"{", 400, "M_NOT_JSON"),
        (b"[]", 400, "M_BAD_JSON"),
        (b'"text"', 400, "M_BAD_JSON"),
        (b'{"a": NaN}', 400, "M_NOT_JSON"),
        (b'{"a": "\\ud800"}', 400, "M_NOT_JSON"),
        (b'{"a": 1.5}', 400, "M_BAD_JSON"),
        (b'{"a": 9007199254740992}', 400, "M_BAD_JSON"),
        (b'{"a": 100000000000000000000000000}', 400, "M_BAD_JSON"),
        (b'{"a": "' + b"x" * 66_000 + b'"}', 413, "M_TOO_LARGE"),
        (b"[" * 5000 + b"]" * 5000, 400, "M_NOT_JSON"),
    ],
)
async def test_what_is_no_content(alice: User, body: bytes, status: int, errcode: str) -> None:
    room_id = await alice.create()
    _refused(await alice.send_event(room_id, "m.room.message", body), errcode, status)


async def test_odd_types_and_rooms(alice: User) -> None:
    room_id = await alice.create()
    _refused(await alice.send_event(room_id, "x" * 256, {}), "M_TOO_LARGE", 413)
    _refused(await alice.send_event(room_id, "a%00b", {}), "M_INVALID_PARAM", 400)
    _refused(await alice.send_event("nowhere", "m.room.message", {}), "M_INVALID_PARAM", 400)
    _refused(await alice.send_event(room_id, "m.room.create", {}))
    _refused(await alice.send_event(room_id, "m.room.member", {"membership": "join"}))
    assert (await alice.send_event(room_id, "m.room.name", {"name": "as a message"})).status == 200
    assert (await alice.get_state(room_id, "m.room.name")).status == 404


async def test_one_annotation_of_a_kind(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    parent = await alice.send(room_id)

    def reaction(key: str) -> dict[str, Any]:
        return {"m.relates_to": {"rel_type": "m.annotation", "event_id": parent, "key": key}}

    first = await bob.send_event(room_id, "m.reaction", reaction("+1"), txn_id="r1")
    assert first.status == 200
    _refused(await bob.send_event(room_id, "m.reaction", reaction("+1")), "M_DUPLICATE_ANNOTATION", 400)
    assert (await bob.send_event(room_id, "m.reaction", reaction("+1"), txn_id="r1")).json == first.json
    assert (await bob.send_event(room_id, "m.reaction", reaction("-1"))).status == 200
    assert (await bob.send_event(room_id, "org.example.reaction", reaction("+1"))).status == 200
    assert (await alice.send_event(room_id, "m.reaction", reaction("+1"))).status == 200
    assert (await bob.redact(room_id, first.json["event_id"])).status == 200
    assert (await bob.send_event(room_id, "m.reaction", reaction("+1"))).status == 200


async def test_of_the_same_annotations_at_once_one_comes_through(alice: User) -> None:
    room_id = await alice.create()
    parent = await alice.send(room_id)
    content = {"m.relates_to": {"rel_type": "m.annotation", "event_id": parent, "key": "+1"}}
    async with asyncio.TaskGroup() as group:
        sent = [group.create_task(alice.send_event(room_id, "m.reaction", content)) for _ in range(6)]
    assert sorted(task.result().status for task in sent) == [200, *[400] * 5]


async def test_threads(api: RoomsApi, alice: User) -> None:
    room_id = await alice.create()
    root = await alice.send(room_id)
    in_thread = await alice.send(room_id, relates_to={"rel_type": "m.thread", "event_id": root})
    nested = {"body": "x", "m.relates_to": {"rel_type": "m.thread", "event_id": in_thread}}
    _refused(await alice.send_event(room_id, "m.room.message", nested), "M_UNKNOWN", 400)
    reaction = {"m.relates_to": {"rel_type": "m.annotation", "event_id": in_thread, "key": "+1"}}
    liked = (await alice.send_event(room_id, "m.reaction", reaction)).json["event_id"]
    assert (await _stored(api, in_thread)).thread_root == root
    assert (await _stored(api, liked)).thread_root == root
    assert (await _stored(api, root)).thread_root is None
    unknown = {"m.relates_to": {"rel_type": "m.thread", "event_id": "$unknown"}}
    assert (await alice.send_event(room_id, "m.room.message", unknown)).status == 200


async def test_odd_relations_are_just_content(alice: User) -> None:
    room_id = await alice.create()
    for relates_to in ("text", {}, {"rel_type": 1, "event_id": []}, {"rel_type": "a\u0000", "event_id": "$x"}):
        assert (await alice.send_event(room_id, "m.room.message", {"m.relates_to": relates_to})).status == 200


async def test_suspended_users_send_nothing_but_redactions_of_their_own(api: RoomsApi, alice: User) -> None:
    room_id = await alice.create(preset="public_chat")
    bob = await api.user("bob")
    await bob.join(room_id)
    own, others = await bob.send(room_id), await alice.send(room_id)
    api.web.accounts.sessions["bob"] = type(bob.requester)(bob.user_id, bob.requester.device_id, is_suspended=True)
    _refused(await bob.send_event(room_id, "m.room.message", {}), "M_USER_SUSPENDED")
    _refused(await bob.set_state(room_id, "org.example", {}), "M_USER_SUSPENDED")
    _refused(await bob.redact(room_id, others), "M_USER_SUSPENDED")
    assert (await bob.redact(room_id, own)).status == 200


async def test_application_services_choose_the_time(api: RoomsApi, alice: User) -> None:
    bridge = await api.user("bridge", appservice_id="bridge")
    room_id = await bridge.create(preset="public_chat")
    await alice.join(room_id)
    path = f"/rooms/{room_id}/send/m.room.message/t1?ts=1234567890123"
    massaged = (await bridge.call("PUT", path, {"body": "old"})).json["event_id"]
    plain = (await alice.call("PUT", path, {"body": "new"})).json["event_id"]
    assert (await _stored(api, massaged)).origin_server_ts == 1234567890123
    assert (await _stored(api, plain)).origin_server_ts != 1234567890123
    state = f"/rooms/{room_id}/state/org.example/?ts=1234567890124"
    assert (await bridge.call("PUT", state, {})).status == 200
    event = (await alice.get_state(room_id, "org.example", query="?format=event")).json
    assert event["origin_server_ts"] == 1234567890124
