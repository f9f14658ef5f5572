"""GET and PUT /rooms/{roomId}/state."""

from contextlib import nullcontext
from typing import Any

import pytest

from homeserver.core.errors import InvalidParam
from homeserver.core.ids import ServerName
from homeserver.services.rooms.content_rules import check_state
from tests.api.rooms.api import RoomsApi, User


def _refused(reply: Any, errcode: str = "M_FORBIDDEN", status: int = 403) -> None:
    assert (reply.status, reply.json["errcode"]) == (status, errcode), reply.body


async def test_setting_and_reading_state(alice: User) -> None:
    room_id = await alice.create()
    reply = await alice.set_state(room_id, "org.example.x", {"n": 1}, "a/b c%")
    assert reply.status == 200
    assert (await alice.get_state(room_id, "org.example.x", "a/b c%")).json == {"n": 1}
    event = (await alice.get_state(room_id, "org.example.x", "a/b c%", "?format=event")).json
    assert event["event_id"] == reply.json["event_id"]
    assert (event["type"], event["state_key"], event["content"]) == ("org.example.x", "a/b c%", {"n": 1})
    for path in ("state/org.example.y", "state/org.example.y/"):
        assert (await alice.call("PUT", f"/rooms/{room_id}/{path}", {"n": 2})).status == 200
        assert (await alice.call("GET", f"/rooms/{room_id}/{path}")).json == {"n": 2}
    _refused(await alice.get_state(room_id, "org.example.x"), "M_NOT_FOUND", 404)
    _refused(await alice.get_state(room_id, "org.example.z", "k"), "M_NOT_FOUND", 404)
    _refused(await alice.get_state(room_id, "m.room.name", query="?format=odd"), "M_INVALID_PARAM", 400)


async def test_what_is_so_already_makes_no_event(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat", power_level_content_override={"state_default": 0})
    await bob.join(room_id)
    first = await alice.set_state(room_id, "org.example", {"a": 1, "b": [True]})
    assert (await alice.set_state(room_id, "org.example", {"b": [True], "a": 1})).json == first.json
    assert (await alice.set_state(room_id, "org.example", {"b": [1], "a": 1})).json != first.json
    by_bob = await bob.set_state(room_id, "org.example", {"b": [1], "a": 1})
    third = (await alice.get_state(room_id, "org.example", query="?format=event")).json
    assert third["event_id"] == by_bob.json["event_id"]
    assert third["unsigned"]["prev_content"] == {"b": [1], "a": 1}


async def test_who_may_set_state(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    _refused(await bob.set_state(room_id, "m.room.name", {"name": "x"}))
    await bob.join(room_id)
    _refused(await bob.set_state(room_id, "m.room.name", {"name": "x"}))
    await alice.set_state(room_id, "m.room.power_levels", {"state_default": 0})
    assert (await bob.set_state(room_id, "m.room.name", {"name": "x"})).status == 200
    assert (await bob.set_state(room_id, "org.example", {}, bob.user_id)).status == 200
    _refused(await bob.set_state(room_id, "org.example", {}, alice.user_id))
    _refused(await bob.set_state("!nowhere:example.org", "org.example", {}))


@pytest.mark.parametrize(
    ("event_type", "state_key", "content", "status", "errcode"),
    [
        ("m.room.create", "", {}, 403, "M_FORBIDDEN"),
        ("m.room.redaction", "", {"redacts": "$x"}, 400, "M_BAD_JSON"),
        ("m.room.power_levels", "", {"users": {"@alice:example.org": "100"}}, 400, "M_BAD_JSON"),
        ("m.room.power_levels", "", {"users": []}, 400, "M_BAD_JSON"),
        ("m.room.power_levels", "", {"events": {"a": 1.0}}, 400, "M_BAD_JSON"),
        ("m.room.power_levels", "", {"ban": True}, 400, "M_BAD_JSON"),
        ("m.room.power_levels", "", {"notifications": {"room": None}}, 400, "M_BAD_JSON"),
        ("m.room.power_levels", "", {"users": {"alice": 1}}, 403, "M_FORBIDDEN"),
        ("m.room.canonical_alias", "", {"alias": "pub"}, 400, "M_INVALID_PARAM"),
        ("m.room.canonical_alias", "", {"alias": 5}, 400, "M_INVALID_PARAM"),
        ("m.room.canonical_alias", "", {"alt_aliases": "#a:b"}, 400, "M_INVALID_PARAM"),
        ("m.room.canonical_alias", "", {"alias": "#nothing:example.org"}, 400, "M_BAD_ALIAS"),
        ("m.room.canonical_alias", "", {"alt_aliases": ["#nothing:elsewhere.org"]}, 400, "M_BAD_ALIAS"),
        ("m.room.server_acl", "", {"allow": ["elsewhere.org"]}, 400, "M_INVALID_PARAM"),
        ("org.example", "x" * 256, {}, 413, "M_TOO_LARGE"),
        ("org.example", "", {"x": "y" * 66_000}, 413, "M_TOO_LARGE"),
        ("org.example", "", {"x": 0.5}, 400, "M_BAD_JSON"),
    ],
)
async def test_what_is_refused(
    alice: User, event_type: str, state_key: str, content: Any, status: int, errcode: str
) -> None:
    room_id = await alice.create()
    before = await alice.all_state(room_id)
    _refused(await alice.set_state(room_id, event_type, content, state_key), errcode, status)
    assert await alice.all_state(room_id) == before


@pytest.mark.parametrize(("server_name", "may_be"), [("example.org", False), ("example.org:8450", True)])
def test_a_server_may_shut_out_the_host_that_it_shares_with_others(server_name: str, may_be: bool) -> None:
    """Access control lists do not tell apart the servers of one host."""
    content = {"allow": ["*"], "deny": ["example.org"]}
    with nullcontext() if may_be else pytest.raises(InvalidParam):
        check_state("m.room.server_acl", "", content, room_id=None, server_name=ServerName(server_name))


async def test_a_room_does_not_replace_itself(alice: User) -> None:
    room_id = await alice.create()
    tombstone = {"body": "gone", "replacement_room": room_id}
    _refused(await alice.set_state(room_id, "m.room.tombstone", tombstone), "M_INVALID_PARAM", 400)


async def test_canonical_aliases_point_here(alice: User, bob: User) -> None:
    room_id = await alice.create(room_alias_name="mine")
    await bob.create(room_alias_name="theirs")
    content = {"alias": "#mine:example.org", "alt_aliases": ["#mine:example.org"]}
    assert (await alice.set_state(room_id, "m.room.canonical_alias", content)).status == 200
    theirs = {"alias": "#mine:example.org", "alt_aliases": ["#theirs:example.org"]}
    _refused(await alice.set_state(room_id, "m.room.canonical_alias", theirs), "M_BAD_ALIAS", 400)
    assert (await alice.set_state(room_id, "m.room.canonical_alias", {})).status == 200
    assert (await alice.set_state(room_id, "m.room.canonical_alias", {"alias": ""})).status == 200


async def test_aliases_that_were_there_may_have_drifted(api: RoomsApi, alice: User) -> None:
    room_id = await alice.create(room_alias_name="mine")
    async with api.db.connection() as conn:
        await conn.execute("DELETE FROM room_aliases")
    content = {"alias": "#mine:example.org", "org.x": 1}
    assert (await alice.set_state(room_id, "m.room.canonical_alias", content)).status == 200


async def test_who_may_read_state(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create(invite=[bob.user_id])
    for user in (bob, carol):
        _refused(await user.call("GET", f"/rooms/{room_id}/state"))
        _refused(await user.get_state(room_id, "m.room.create"))
    _refused(await alice.call("GET", "/rooms/!nowhere:example.org/state"))
    _refused(await alice.call("GET", "/rooms/nowhere/state"), "M_INVALID_PARAM", 400)
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    assert await carol.all_state(room_id) == await alice.all_state(room_id)


async def test_who_has_left_sees_the_room_as_it_was(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat", name="before")
    await bob.join(room_id)
    await bob.post(room_id, "leave")
    await alice.set_state(room_id, "m.room.name", {"name": "after"})
    await alice.set_state(room_id, "m.room.topic", {"topic": "after"})
    assert (await bob.get_state(room_id, "m.room.name")).json == {"name": "before"}
    _refused(await bob.get_state(room_id, "m.room.topic"), "M_NOT_FOUND", 404)
    assert (await bob.get_state(room_id, "m.room.member", bob.user_id)).json == {"membership": "leave"}
    state = await bob.all_state(room_id)
    assert state[("m.room.name", "")]["content"] == {"name": "before"}
    assert state[("m.room.member", bob.user_id)]["content"] == {"membership": "leave"}
    await alice.post(room_id, "ban", user_id=bob.user_id)
    assert (await bob.get_state(room_id, "m.room.name")).json == {"name": "before"}
    assert (await bob.get_state(room_id, "m.room.member", bob.user_id)).json == {"membership": "leave"}


async def test_who_only_rejected_an_invitation_sees_nothing(alice: User, bob: User) -> None:
    room_id = await alice.create(invite=[bob.user_id])
    await bob.post(room_id, "leave")
    _refused(await bob.get_state(room_id, "m.room.create"))
