"""POST /createRoom."""

from typing import Any

import pytest

from homeserver.config.schema import DirectoryConfig, RoomsConfig
from homeserver.core.room_versions import ROOM_VERSIONS
from storage.aliases import list_aliases_of_room
from storage.events import stored_event
from storage.published_rooms import is_published
from tests.api.rooms.api import RoomsApi, User, rooms_api
from tests.api.server import composed_server
from tests.fast_clock import FastClock


async def _types_in_order(api: RoomsApi, room_id: str) -> list[str]:
    async with api.db.connection() as conn:
        rows = await conn.fetch("SELECT * FROM stored_events WHERE room_id = $1 ORDER BY event_nid", room_id)
    return [stored_event(row).type for row in rows]


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_each_room_version_can_be_created(alice: User, bob: User, version: str) -> None:
    room_id = await alice.create(room_version=version, name="Pub", topic="All about happy hour", invite=[bob.user_id])
    state = await alice.all_state(room_id)
    create = state[("m.room.create", "")]
    assert create["content"]["room_version"] == version
    assert ("creator" in create["content"]) == (int(version) < 11)
    assert state[("m.room.name", "")]["content"] == {"name": "Pub"}
    assert state[("m.room.topic", "")]["content"] == {
        "topic": "All about happy hour",
        "m.topic": {"m.text": [{"body": "All about happy hour"}]},
    }
    assert state[("m.room.member", bob.user_id)]["content"]["membership"] == "invite"
    levels = state[("m.room.power_levels", "")]["content"]
    assert levels["users"] == ({} if version == "12" else {alice.user_id: 100})
    assert levels["events"]["m.room.tombstone"] == (150 if version == "12" else 100)
    assert (room_id == "!" + create["event_id"][1:]) == (version == "12")
    await bob.join(room_id)
    await bob.send(room_id)


async def test_the_events_come_in_the_specified_order(api: RoomsApi, alice: User, bob: User) -> None:
    room_id = await alice.create(
        room_alias_name="pub",
        name="Pub",
        topic="Beer",
        invite=[bob.user_id],
        initial_state=[{"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}],
    )
    assert await _types_in_order(api, room_id) == [
        "m.room.create",
        "m.room.member",
        "m.room.power_levels",
        "m.room.canonical_alias",
        "m.room.join_rules",
        "m.room.history_visibility",
        "m.room.guest_access",
        "m.room.encryption",
        "m.room.name",
        "m.room.topic",
        "m.room.member",
    ]


@pytest.mark.parametrize(
    ("body", "join_rule", "guest_access"),
    [
        ({}, "invite", "can_join"),
        ({"visibility": "public"}, "public", None),
        ({"visibility": "private"}, "invite", "can_join"),
        ({"preset": "private_chat", "visibility": "public"}, "invite", "can_join"),
        ({"preset": "trusted_private_chat"}, "invite", "can_join"),
        ({"preset": "public_chat"}, "public", None),
    ],
)
async def test_presets(alice: User, body: dict[str, Any], join_rule: str, guest_access: str | None) -> None:
    state = await alice.all_state(await alice.create(**body))
    assert state[("m.room.join_rules", "")]["content"]["join_rule"] == join_rule
    guests = state.get(("m.room.guest_access", ""), {"content": {}})["content"].get("guest_access")
    assert guests == guest_access
    assert state[("m.room.history_visibility", "")]["content"]["history_visibility"] == "shared"


async def test_a_trusted_chat_gives_the_invited_the_creators_power(alice: User, bob: User) -> None:
    old = await alice.all_state(
        await alice.create(preset="trusted_private_chat", invite=[bob.user_id], room_version="11")
    )
    assert old[("m.room.power_levels", "")]["content"]["users"] == {alice.user_id: 100, bob.user_id: 100}
    new = await alice.all_state(
        await alice.create(
            preset="trusted_private_chat",
            invite=[bob.user_id],
            creation_content={"additional_creators": ["@dora:elsewhere.org", bob.user_id]},
        )
    )
    assert new[("m.room.create", "")]["content"]["additional_creators"] == ["@dora:elsewhere.org", bob.user_id]
    assert new[("m.room.power_levels", "")]["content"]["users"] == {}


async def test_initial_state_goes_before_the_preset_and_name_before_initial_state(api: RoomsApi, alice: User) -> None:
    room_id = await alice.create(
        name="Right",
        initial_state=[
            {"type": "m.room.name", "content": {"name": "Wrong"}},
            {"type": "m.room.join_rules", "content": {"join_rule": "knock"}},
            {"type": "org.example.x", "state_key": "a/b", "content": {"n": 1}},
        ],
    )
    state = await alice.all_state(room_id)
    assert state[("m.room.name", "")]["content"] == {"name": "Right"}
    assert state[("m.room.join_rules", "")]["content"] == {"join_rule": "knock"}
    assert state[("org.example.x", "a/b")]["content"] == {"n": 1}
    types = await _types_in_order(api, room_id)
    assert types.count("m.room.join_rules") == types.count("m.room.name") == 1


async def test_an_alias_and_the_directory(api: RoomsApi, alice: User, bob: User) -> None:
    room_id = await alice.create(visibility="public", room_alias_name="thepub")
    state = await alice.all_state(room_id)
    assert state[("m.room.canonical_alias", "")]["content"] == {"alias": "#thepub:example.org"}
    async with api.db.connection() as conn:
        assert await list_aliases_of_room(conn, room_id) == ["#thepub:example.org"]  # type: ignore[arg-type]
        assert await is_published(conn, room_id)  # type: ignore[arg-type]
    taken = await bob.call("POST", "/createRoom", {"room_alias_name": "thepub"})
    assert (taken.status, taken.json["errcode"]) == (400, "M_ROOM_IN_USE")


async def test_is_direct_marks_the_invitations(alice: User, bob: User) -> None:
    state = await alice.all_state(await alice.create(is_direct=True, invite=[bob.user_id, bob.user_id, alice.user_id]))
    assert state[("m.room.member", bob.user_id)]["content"]["is_direct"] is True
    assert "is_direct" not in state[("m.room.member", alice.user_id)]["content"]


async def test_creation_content_is_kept_but_for_what_the_server_says(alice: User) -> None:
    predecessor = {"room_id": "!old:example.org", "event_id": "$last"}
    room_id = await alice.create(
        room_version="10",
        creation_content={
            "type": "m.space",
            "m.federate": False,
            "creator": "@eve:example.org",
            "room_version": "1",
            "predecessor": predecessor,
        },
    )
    content = (await alice.all_state(room_id))[("m.room.create", "")]["content"]
    assert content == {
        "type": "m.space",
        "m.federate": False,
        "creator": alice.user_id,
        "room_version": "10",
        "predecessor": predecessor,
    }


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({"room_version": "99"}, 400, "M_UNSUPPORTED_ROOM_VERSION"),
        ({"room_version": 12}, 400, "M_BAD_JSON"),
        ({"preset": "secret_chat"}, 400, "M_BAD_JSON"),
        ({"visibility": "hidden"}, 400, "M_BAD_JSON"),
        ({"name": 5}, 400, "M_BAD_JSON"),
        ({"invite": ["bob"]}, 400, "M_INVALID_PARAM"),
        ({"invite": "bob"}, 400, "M_BAD_JSON"),
        ({"room_alias_name": "a b"}, 400, "M_INVALID_PARAM"),
        ({"room_alias_name": "a:b"}, 400, "M_INVALID_PARAM"),
        ({"room_alias_name": ""}, 400, "M_INVALID_PARAM"),
        ({"room_alias_name": "x" * 250}, 400, "M_INVALID_PARAM"),
        ({"initial_state": [{"type": "m.room.name"}]}, 400, "M_MISSING_PARAM"),
        ({"initial_state": [{"type": "m.room.name", "content": 1}]}, 400, "M_BAD_JSON"),
        ({"initial_state": [{"type": "m\u0000", "content": {}}]}, 400, "M_BAD_JSON"),
        ({"initial_state": [{"type": "t", "content": {"n": 1.5}}]}, 400, "M_BAD_JSON"),
        ({"initial_state": [{"type": "t", "content": {"n": 2**53}}]}, 400, "M_BAD_JSON"),
        ({"initial_state": [{"type": "m.room.create", "content": {}}]}, 400, "M_INVALID_ROOM_STATE"),
        (
            {"initial_state": [{"type": "m.room.member", "state_key": "@x:y", "content": {"membership": "join"}}]},
            400,
            "M_INVALID_ROOM_STATE",
        ),
        ({"power_level_content_override": {"users": {"@alice:example.org": 100}}}, 400, "M_INVALID_ROOM_STATE"),
        ({"power_level_content_override": {"users": {"@alice:example.org": "100"}}}, 400, "M_BAD_JSON"),
        ({"power_level_content_override": {"ban": 2**53}}, 400, "M_BAD_JSON"),
        (
            {"room_version": "11", "power_level_content_override": {"events": {"m.room.name": 101}}, "name": "x"},
            400,
            "M_INVALID_ROOM_STATE",
        ),
        ({"creation_content": {"additional_creators": ["nobody"]}}, 400, "M_INVALID_PARAM"),
        ({"creation_content": {"additional_creators": "@a:b"}}, 400, "M_BAD_JSON"),
        ({"creation_content": {"m.federate": "no"}}, 400, "M_BAD_JSON"),
        (
            {"invite_3pid": [{"id_server": "i", "id_access_token": "t", "medium": "email", "address": "a@b"}]},
            403,
            "M_THREEPID_DENIED",
        ),
        ({"initial_state": [{"type": "t", "content": {"x": "y" * 70_000}}]}, 413, "M_TOO_LARGE"),
    ],
)
async def test_what_is_refused_leaves_no_room(
    api: RoomsApi, alice: User, body: dict[str, Any], status: int, errcode: str
) -> None:
    reply = await alice.call("POST", "/createRoom", body)
    assert (reply.status, reply.json["errcode"]) == (status, errcode), reply.body
    async with api.db.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM rooms") == 0
        assert await conn.fetchval("SELECT count(*) FROM events") == 0
    assert (await alice.call("GET", "/joined_rooms")).json == {"joined_rooms": []}


async def test_guests_and_suspended_users_create_no_rooms(api: RoomsApi) -> None:
    guest = await api.user("guest", is_guest=True)
    suspended = await api.user("suspended", is_suspended=True)
    assert (await guest.call("POST", "/createRoom")).json["errcode"] == "M_GUEST_ACCESS_FORBIDDEN"
    assert (await suspended.call("POST", "/createRoom")).json["errcode"] == "M_USER_SUSPENDED"


@pytest.mark.parametrize(
    ("default", "preset", "encrypted"),
    [
        ("off", "private_chat", False),
        ("invite", "private_chat", True),
        ("invite", "public_chat", False),
        ("all", "public_chat", True),
    ],
)
async def test_encryption_by_default(database_url: str, default: Any, preset: str, encrypted: bool) -> None:
    async with rooms_api(database_url, rooms_config=RoomsConfig(encryption_default=default)) as api:
        alice = await api.user("alice")
        state = await alice.all_state(await alice.create(preset=preset))
        assert (("m.room.encryption", "") in state) == encrypted


async def test_listing_rooms_can_be_kept_to_administrators(database_url: str) -> None:
    async with rooms_api(database_url, directory_config=DirectoryConfig(publish="admins")) as api:
        alice, admin = await api.user("alice"), await api.user("admin", is_admin=True)
        reply = await alice.call("POST", "/createRoom", {"visibility": "public"})
        assert (reply.status, reply.json["errcode"]) == (403, "M_FORBIDDEN")
        await admin.create(visibility="public")
        await alice.create(preset="public_chat")


async def test_rooms_that_are_made_alike_in_one_moment_are_two_rooms(database_url: str) -> None:
    """From version 12 on a room is named after its create event, which says when it was made, to the millisecond."""
    # On this clock a millisecond takes a fiftieth of a second.
    async with composed_server(database_url, clock=FastClock(speed=0.05)) as site:
        alice = await site.register("alice")
        bodies = [await alice.post("/createRoom", {"room_version": "12", "name": "Pub"}) for _ in range(6)]
    assert len({body["room_id"] for body in bodies}) == len(bodies)
