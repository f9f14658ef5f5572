"""POST /rooms/{roomId}/upgrade."""

from itertools import pairwise
from typing import Any

import orjson
import pytest

from homeserver.core.ids import RoomAlias, RoomId
from homeserver.core.room_versions import ROOM_VERSIONS
from storage.aliases import find_rooms_of_aliases
from storage.published_rooms import is_published
from tests.api.rooms.api import RoomsApi, User

ALL_VERSIONS = list(ROOM_VERSIONS)


def _refused(reply: Any, errcode: str = "M_FORBIDDEN", status: int = 403) -> None:
    assert (reply.status, reply.json["errcode"]) == (status, errcode), reply.body


async def _upgrade(user: User, room_id: str, version: str, **more: Any) -> str:
    reply = await user.post(room_id, "upgrade", new_version=version, **more)
    assert reply.status == 200, reply.body
    new_room_id: str = reply.json["replacement_room"]
    return new_room_id


@pytest.mark.parametrize(
    ("old", "new"),
    [*pairwise(ALL_VERSIONS), ("12", "12"), ("12", "11"), ("1", "12"), ("12", "1")],
)
async def test_a_room_is_replaced(alice: User, old: str, new: str) -> None:
    room_id = await alice.create(room_version=old, name="Pub", topic="Beer")
    new_room_id = await _upgrade(alice, room_id, new)
    before, after = await alice.all_state(room_id), await alice.all_state(new_room_id)
    tombstone, create = before[("m.room.tombstone", "")], after[("m.room.create", "")]
    assert tombstone["content"]["replacement_room"] == new_room_id
    assert create["content"]["room_version"] == new
    predecessor = create["content"]["predecessor"]
    assert predecessor["room_id"] == room_id
    assert new == "12" or predecessor["event_id"] == tombstone["event_id"]
    for event_type in ("name", "topic", "join_rules", "history_visibility", "guest_access"):
        slot = (f"m.room.{event_type}", "")
        assert after[slot]["content"] == before[slot]["content"]
    levels = after[("m.room.power_levels", "")]["content"]
    assert (alice.user_id in levels["users"]) == (new != "12")
    if new == "12":
        assert levels["events"]["m.room.tombstone"] > levels["state_default"]
    await alice.send(new_room_id)
    assert (await alice.set_state(new_room_id, "m.room.name", {"name": "new"})).status == 200


async def test_nothing_is_lost_that_is_carried_over(alice: User, bob: User) -> None:
    extra = {
        "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2"},
        "m.room.server_acl": {"allow": ["*"], "deny": ["evil.example.org"]},
        "m.room.avatar": {"url": "mxc://example.org/a"},
        "org.example.private": {"n": 1},
    }
    room_id = await alice.create(
        initial_state=[{"type": event_type, "content": content} for event_type, content in extra.items()],
        creation_content={"type": "m.space", "m.federate": False},
    )
    child = {"via": ["example.org"], "order": "a"}
    await alice.set_state(room_id, "m.space.child", child, "!child:example.org")
    await alice.set_state(room_id, "m.space.child", {}, "!gone:example.org")
    await alice.post(room_id, "ban", user_id=bob.user_id, reason="spam")
    after = await alice.all_state(await _upgrade(alice, room_id, "12"))
    for event_type in ("encryption", "server_acl", "avatar"):
        assert after[(f"m.room.{event_type}", "")]["content"] == extra[f"m.room.{event_type}"]
    assert ("org.example.private", "") not in after
    assert after[("m.space.child", "!child:example.org")]["content"] == child
    assert ("m.space.child", "!gone:example.org") not in after
    assert after[("m.room.member", bob.user_id)]["content"] == {"membership": "ban", "reason": "spam"}
    create = after[("m.room.create", "")]["content"]
    assert (create["type"], create["m.federate"]) == ("m.space", False)


async def test_a_moderator_stays_a_moderator(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create(preset="public_chat", room_version="10")
    levels = (await alice.get_state(room_id, "m.room.power_levels")).json
    levels["users"][str(bob.user_id)] = 50
    levels["events"]["m.room.tombstone"] = 50
    await alice.set_state(room_id, "m.room.power_levels", levels)
    await bob.join(room_id)
    await alice.post(room_id, "ban", user_id=carol.user_id)
    new_room_id = await _upgrade(bob, room_id, "11")
    assert (await bob.get_state(new_room_id, "m.room.power_levels")).json == levels
    assert (await bob.get_state(room_id, "m.room.power_levels")).json == levels
    assert await bob.membership(new_room_id, carol) == "ban"
    newest = await _upgrade(bob, new_room_id, "12")
    users = (await bob.get_state(newest, "m.room.power_levels")).json["users"]
    assert users == {alice.user_id: 100}


async def test_additional_creators(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create(
        power_level_content_override={"users": {str(bob.user_id): 100, str(carol.user_id): 50}},
        creation_content={"additional_creators": ["@dora:example.org"]},
    )
    creators = [bob.user_id, alice.user_id, bob.user_id]
    new_room_id = await _upgrade(alice, room_id, "12", additional_creators=creators)
    after = await alice.all_state(new_room_id)
    assert after[("m.room.create", "")]["content"]["additional_creators"] == [bob.user_id]
    assert after[("m.room.power_levels", "")]["content"]["users"] == {carol.user_id: 50}
    older = await alice.all_state(await _upgrade(alice, room_id, "11", additional_creators=creators))
    assert "additional_creators" not in older[("m.room.create", "")]["content"]
    users = older[("m.room.power_levels", "")]["content"]["users"]
    assert users[alice.user_id] == users["@dora:example.org"] == 150
    assert users[carol.user_id] == 50


async def test_the_old_room_is_closed(alice: User, bob: User) -> None:
    room_id, unusual = [await alice.create(preset="public_chat", room_version="11") for _ in range(2)]
    await bob.join(room_id)
    await _upgrade(alice, room_id, "12")
    levels = (await alice.get_state(room_id, "m.room.power_levels")).json
    assert (levels["events_default"], levels["invite"]) == (50, 50)
    _refused(await bob.send_event(room_id, "m.room.message", {}))
    levels["users_default"] = 80
    await alice.set_state(unusual, "m.room.power_levels", levels)
    await _upgrade(alice, unusual, "12")
    levels = (await alice.get_state(unusual, "m.room.power_levels")).json
    assert (levels["events_default"], levels["invite"]) == (81, 81)


async def test_aliases_and_the_directory_move(api: RoomsApi, alice: User) -> None:
    alias = RoomAlias.parse("#pub:example.org")
    room_id = await alice.create(visibility="public", room_alias_name="pub", room_version="11")
    new_room_id = await _upgrade(alice, room_id, "12")
    async with api.db.connection() as conn:
        assert await find_rooms_of_aliases(conn, [alias]) == {alias: new_room_id}
        assert await is_published(conn, RoomId(new_room_id))
        assert not await is_published(conn, RoomId(room_id))
    assert (await alice.get_state(room_id, "m.room.canonical_alias")).json == {}
    assert (await alice.get_state(new_room_id, "m.room.canonical_alias")).json == {"alias": alias}


async def test_what_is_refused(api: RoomsApi, alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    before = await alice.all_state(room_id)
    _refused(await alice.post(room_id, "upgrade", new_version="99"), "M_UNSUPPORTED_ROOM_VERSION", 400)
    _refused(await alice.post(room_id, "upgrade"), "M_MISSING_PARAM", 400)
    _refused(await alice.post(room_id, "upgrade", new_version=12), "M_BAD_JSON", 400)
    _refused(await alice.post(room_id, "upgrade", new_version="12", additional_creators=["x"]), "M_INVALID_PARAM", 400)
    _refused(await alice.post("!fail:unknown", "upgrade", new_version="12"), "M_NOT_FOUND", 404)
    _refused(await bob.post(room_id, "upgrade", new_version="12"))
    stranger = await api.user("stranger")
    _refused(await stranger.post(room_id, "upgrade", new_version="12"))
    assert await alice.all_state(room_id) == before
    async with api.db.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM rooms") == 1
    tombstone = {"replacement_room": room_id}
    _refused(await alice.send_event(room_id, "m.room.tombstone", tombstone), "M_INVALID_PARAM", 400)


async def _account_data(api: RoomsApi, user: User, event_type: str, room_id: str = "") -> Any:
    async with api.db.connection() as conn:
        content = await conn.fetchval(
            "SELECT content FROM account_data WHERE user_id = $1 AND room_id = $2 AND type = $3",
            user.user_id,
            room_id,
            event_type,
        )
    return None if content is None else orjson.loads(content)


async def _set_account_data(api: RoomsApi, user: User, event_type: str, content: Any, room_id: str = "") -> None:
    async with api.db.connection() as conn:
        await conn.execute(
            "INSERT INTO account_data (user_id, room_id, type, content) VALUES ($1, $2, $3, $4)",
            user.user_id,
            room_id,
            event_type,
            orjson.dumps(content).decode(),
        )


@pytest.mark.parametrize("version", ["11", "12"])
async def test_the_users_own_settings_follow(api: RoomsApi, alice: User, bob: User, version: str) -> None:
    room_id = await alice.create(preset="public_chat", room_version="10")
    await bob.join(room_id)
    for user in (alice, bob):
        await _set_account_data(api, user, "m.tag", {"tags": {"u.work": {}}}, room_id)
        await _set_account_data(api, user, "m.direct", {"@x:example.org": ["!a:b", room_id], "@y:z": 5})
    new_room_id = await _upgrade(alice, room_id, version)
    direct = {"@x:example.org": ["!a:b", room_id, new_room_id], "@y:z": 5}
    assert await _account_data(api, alice, "m.direct") == direct
    assert await _account_data(api, alice, "m.tag", new_room_id) == {"tags": {"u.work": {}}}
    assert await _account_data(api, bob, "m.tag", new_room_id) is None
    await bob.join(new_room_id)
    assert await _account_data(api, bob, "m.direct") == direct
    assert await _account_data(api, bob, "m.tag", new_room_id) == {"tags": {"u.work": {}}}
    assert api.rules.copied == [(user.user_id, room_id, new_room_id) for user in (alice, bob)]


async def test_a_room_cannot_claim_another_ones_settings(api: RoomsApi, alice: User, bob: User) -> None:
    old = await alice.create(preset="public_chat")
    await bob.join(old)
    await _set_account_data(api, bob, "m.tag", {"tags": {"u.work": {}}}, old)
    impostor = await alice.create(preset="public_chat", creation_content={"predecessor": {"room_id": old}})
    await bob.join(impostor)
    assert await _account_data(api, bob, "m.tag", impostor) is None
