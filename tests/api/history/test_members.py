"""GET /rooms/{roomId}/members and /joined_members."""

from typing import Any

import pytest

from homeserver.core.tokens import SyncToken
from tests.api.history.api import ReadingServer, User, refused


def _memberships(answer: Any) -> dict[str, str]:
    return {event["state_key"]: event["content"]["membership"] for event in answer["chunk"]}


async def _room(alice: User, bob: User, carol: User) -> str:
    """A room with alice in it, bob gone and carol invited."""
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    await bob.leave(room_id)
    await alice.invite(room_id, carol)
    return room_id


async def test_all_members_and_those_who_are_wanted(alice: User, bob: User, carol: User) -> None:
    room_id = await _room(alice, bob, carol)
    path = f"/rooms/{room_id}/members"
    everybody = {alice.user_id: "join", bob.user_id: "leave", carol.user_id: "invite"}
    assert _memberships(await alice.get(path)) == everybody
    assert _memberships(await alice.get(path, membership="join")) == {alice.user_id: "join"}
    assert set(_memberships(await alice.get(path, not_membership="leave"))) == {alice.user_id, carol.user_id}
    either = await alice.get(path, membership="leave", not_membership="join")
    assert set(_memberships(either)) == {bob.user_id, carol.user_id}
    refused(await alice.call("GET", path, membership="gone"), 400, "M_INVALID_PARAM")
    refused(await alice.call("GET", path, not_membership="gone"), 400, "M_INVALID_PARAM")
    refused(await alice.call("GET", path, at="nonsense"), 400, "M_INVALID_PARAM")


async def test_members_as_they_are_after_a_redaction(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    await bob.put(f"/rooms/{room_id}/state/m.room.member/{bob.user_id}", {"membership": "join", "displayname": "rude"})

    async def of_bob() -> Any:
        chunk = (await alice.get(f"/rooms/{room_id}/members"))["chunk"]
        return next(event for event in chunk if event["state_key"] == bob.user_id)

    before = await of_bob()
    assert before["content"] == {"membership": "join", "displayname": "rude"}
    assert before["unsigned"]["age"] >= 0
    assert before["unsigned"]["prev_content"] == {"membership": "join"}
    await alice.redact(room_id, before["event_id"])
    after = await of_bob()
    assert after["content"] == {"membership": "join"}
    assert after["unsigned"]["redacted_because"]["sender"] == alice.user_id
    assert after["unsigned"]["age"] >= 0


async def test_members_at_a_point_of_time(server: ReadingServer, alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    alone = SyncToken(await server.hub.bound()).format()
    await bob.join(room_id)
    together = (await alice.messages(room_id, limit=1))["start"]
    await bob.leave(room_id)
    path = f"/rooms/{room_id}/members"
    assert _memberships(await alice.get(path, at=alone)) == {alice.user_id: "join"}
    assert _memberships(await alice.get(path, at=together)) == {alice.user_id: "join", bob.user_id: "join"}
    assert _memberships(await alice.get(path)) == {alice.user_id: "join", bob.user_id: "leave"}
    assert (await alice.get(path, at="s0"))["chunk"] == []


async def test_who_left_sees_the_members_of_that_moment(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    await bob.leave(room_id)
    await carol.join(room_id)
    path = f"/rooms/{room_id}/members"
    now = SyncToken(2**60).format()
    for query in ({}, {"at": now}):
        assert _memberships(await bob.get(path, **query)) == {alice.user_id: "join", bob.user_id: "leave"}
    await bob.post(f"/rooms/{room_id}/forget")
    refused(await bob.call("GET", path), 403, "M_FORBIDDEN")


async def test_s20_members_are_not_shown_to_outsiders_nor_before_their_time(
    server: ReadingServer, alice: User, bob: User, carol: User
) -> None:
    """Who was in a room at a time that one may not see is not told either (lesson S20)."""
    state = [{"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}]
    room_id = await alice.create(preset="public_chat", initial_state=state)
    await carol.join(room_id)
    await carol.leave(room_id)
    before = SyncToken(await server.hub.bound()).format()
    path = f"/rooms/{room_id}/members"
    for outsider in (bob, await server.user("guest", is_guest=True)):
        refused(await outsider.call("GET", path), 403, "M_FORBIDDEN")
    await bob.join(room_id)
    refused(await bob.call("GET", path, at=before), 403, "M_FORBIDDEN")
    assert set(_memberships(await bob.get(path))) == {alice.user_id, bob.user_id, carol.user_id}


async def test_everybody_sees_the_members_of_a_world_readable_room(server: ReadingServer, alice: User) -> None:
    state = [
        {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "world_readable"}}
    ]
    room_id = await alice.create(initial_state=state)
    guest = await server.user("guest", is_guest=True)
    assert _memberships(await guest.get(f"/rooms/{room_id}/members")) == {alice.user_id: "join"}
    refused(await guest.call("GET", f"/rooms/{room_id}/joined_members"), 403, "M_GUEST_ACCESS_FORBIDDEN")


async def test_joined_members_with_their_profiles(alice: User, bob: User, carol: User) -> None:
    room_id = await _room(alice, bob, carol)
    profile = {"membership": "join", "displayname": "Alice \0", "avatar_url": "mxc://example.org/alice"}
    await alice.set_state(room_id, "m.room.member", profile, alice.user_id)
    joined = (await alice.get(f"/rooms/{room_id}/joined_members"))["joined"]
    assert joined == {alice.user_id: {"display_name": "Alice \0", "avatar_url": "mxc://example.org/alice"}}
    await alice.set_state(room_id, "m.room.member", {"membership": "join", "displayname": 5}, alice.user_id)
    joined = (await alice.get(f"/rooms/{room_id}/joined_members"))["joined"]
    assert joined == {alice.user_id: {}}
    for other in (bob, carol):
        refused(await other.call("GET", f"/rooms/{room_id}/joined_members"), 403, "M_FORBIDDEN")
    refused(await alice.call("GET", "/rooms/!absent:example.org/joined_members"), 403, "M_FORBIDDEN")


async def test_an_application_service_sees_the_members_of_rooms_that_its_users_are_in(
    server: ReadingServer, alice: User
) -> None:
    ghost = await server.user("ghost", appservice_id="bridge")
    bot = await server.user("bot", appservice_id="bridge")
    other = await server.user("other", appservice_id="another")
    room_id = await alice.create(preset="public_chat")
    path = f"/rooms/{room_id}/joined_members"
    refused(await bot.call("GET", path), 403, "M_FORBIDDEN")
    await ghost.join(room_id)
    assert set((await bot.get(path))["joined"]) == {alice.user_id, ghost.user_id}
    refused(await other.call("GET", path), 403, "M_FORBIDDEN")


@pytest.mark.parametrize("endpoint", ["members", "joined_members"])
async def test_wrong_rooms(alice: User, endpoint: str) -> None:
    refused(await alice.call("GET", f"/rooms/nonsense/{endpoint}"), 400, "M_INVALID_PARAM")
