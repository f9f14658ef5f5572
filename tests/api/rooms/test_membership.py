"""Joining, inviting, knocking, leaving, forgetting, kicking, banning."""

from typing import Any

import pytest

from homeserver.core.ids import RoomId
from homeserver.core.room_versions import ROOM_VERSIONS
from tests.api.rooms.api import RoomsApi, User


def _refused(reply: Any, errcode: str = "M_FORBIDDEN", status: int = 403) -> None:
    assert (reply.status, reply.json["errcode"]) == (status, errcode), reply.body


async def _events(api: RoomsApi, room_id: str) -> int:
    async with api.db.connection() as conn:
        count: int = await conn.fetchval("SELECT count(*) FROM stored_events WHERE room_id = $1", room_id)
    return count


async def test_joining_a_public_room_by_id_and_by_alias(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create(preset="public_chat", room_alias_name="pub")
    by_id = await bob.call("POST", f"/join/{room_id}", {"reason": "thirst"})
    assert (by_id.status, by_id.json) == (200, {"room_id": room_id})
    by_alias = await carol.call("POST", "/join/%23pub:example.org")
    assert (by_alias.status, by_alias.json) == (200, {"room_id": room_id})
    state = await carol.all_state(room_id)
    assert state[("m.room.member", bob.user_id)]["content"] == {"membership": "join", "reason": "thirst"}
    assert (await carol.call("GET", "/joined_rooms")).json == {"joined_rooms": [room_id]}


async def test_joining_what_is_not_there(alice: User) -> None:
    _refused(await alice.call("POST", "/join/!nowhere:example.org"), "M_NOT_FOUND", 404)
    _refused(await alice.call("POST", "/join/%23nowhere:example.org"), "M_NOT_FOUND", 404)
    _refused(await alice.call("POST", "/join/%23nowhere:elsewhere.org"), "M_NOT_FOUND", 404)
    _refused(await alice.call("POST", "/join/nowhere"), "M_INVALID_PARAM", 400)
    _refused(await alice.call("POST", "/knock/!nowhere:example.org"), "M_NOT_FOUND", 404)


async def test_joining_again_changes_nothing(api: RoomsApi, alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    before = await _events(api, room_id)
    await bob.join(room_id)
    assert (await bob.post(room_id, "join")).json == {"room_id": room_id}
    assert await _events(api, room_id) == before


async def test_a_private_room_is_joined_by_invitation_only(alice: User, bob: User) -> None:
    room_id = await alice.create()
    _refused(await bob.post(room_id, "join"))
    assert (await alice.post(room_id, "invite", user_id=bob.user_id, reason="come")).status == 200
    state = await alice.all_state(room_id)
    assert state[("m.room.member", bob.user_id)]["content"] == {"membership": "invite", "reason": "come"}
    await bob.join(room_id)
    assert await alice.membership(room_id, bob) == "join"


async def test_third_party_invitations_are_refused(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    by_mail = {"id_server": "i", "id_access_token": "t", "medium": "email", "address": "bob@example.org"}
    _refused(await alice.post(room_id, "invite", **by_mail), "M_THREEPID_DENIED")
    _refused(await alice.post(room_id, "invite"), "M_MISSING_PARAM", 400)
    signed = {"sender": "@a:b", "mxid": bob.user_id, "token": "t", "signatures": {}}
    _refused(await bob.post(room_id, "join", third_party_signed=signed), "M_THREEPID_DENIED")


async def test_who_may_invite(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create(preset="public_chat")
    _refused(await bob.post(room_id, "invite", user_id=carol.user_id))
    await bob.join(room_id)
    _refused(await bob.post(room_id, "invite", user_id=carol.user_id))
    assert (await alice.post(room_id, "invite", user_id=carol.user_id)).status == 200
    _refused(await alice.post(room_id, "invite", user_id=bob.user_id))
    assert (await alice.post(room_id, "ban", user_id=carol.user_id)).status == 200
    _refused(await alice.post(room_id, "invite", user_id=carol.user_id))
    _refused(await alice.post(room_id, "invite", user_id="carol"), "M_INVALID_PARAM", 400)
    _refused(await alice.post("!nowhere:example.org", "invite", user_id=carol.user_id))


async def test_a_repeated_invitation_is_one_event(api: RoomsApi, alice: User, bob: User) -> None:
    room_id = await alice.create()
    await alice.post(room_id, "invite", user_id=bob.user_id)
    before = await _events(api, room_id)
    assert (await alice.post(room_id, "invite", user_id=bob.user_id)).status == 200
    assert await _events(api, room_id) == before


async def test_who_does_not_want_invitations_gets_none(api: RoomsApi, alice: User, bob: User) -> None:
    async with api.db.connection() as conn:
        await conn.execute(
            "INSERT INTO account_data (user_id, room_id, type, content) VALUES ($1, '', $2, $3)",
            bob.user_id,
            "m.invite_permission_config",
            '{"default_action": "block"}',
        )
    room_id = await alice.create()
    _refused(await alice.post(room_id, "invite", user_id=bob.user_id), "M_INVITE_BLOCKED")
    _refused(await alice.call("POST", "/createRoom", {"invite": [bob.user_id]}), "M_INVITE_BLOCKED")
    invite = await alice.set_state(room_id, "m.room.member", {"membership": "invite"}, bob.user_id)
    _refused(invite, "M_INVITE_BLOCKED")


@pytest.mark.parametrize("version", [version for version in ROOM_VERSIONS if int(version) >= 7])
async def test_knocking(alice: User, bob: User, version: str) -> None:
    room_id = await alice.create(
        room_version=version, initial_state=[{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]
    )
    _refused(await bob.post(room_id, "join"))
    reply = await bob.call("POST", f"/knock/{room_id}", {"reason": "please"})
    assert (reply.status, reply.json) == (200, {"room_id": room_id})
    state = await alice.all_state(room_id)
    assert state[("m.room.member", bob.user_id)]["content"] == {"membership": "knock", "reason": "please"}
    assert (await bob.post(room_id, "leave")).status == 200
    assert await alice.membership(room_id, bob) == "leave"
    await bob.call("POST", f"/knock/{room_id}")
    assert (await alice.post(room_id, "invite", user_id=bob.user_id)).status == 200
    _refused(await bob.call("POST", f"/knock/{room_id}"))
    await bob.join(room_id)
    _refused(await bob.call("POST", f"/knock/{room_id}"))


async def test_rooms_that_take_no_knocks(alice: User, bob: User) -> None:
    _refused(await bob.call("POST", f"/knock/{await alice.create()}"))
    old = await alice.create(
        room_version="6", initial_state=[{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]
    )
    _refused(await bob.call("POST", f"/knock/{old}"))


async def test_leaving(api: RoomsApi, alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create(invite=[bob.user_id])
    _refused(await carol.post(room_id, "leave"))
    _refused(await carol.post("!nowhere:example.org", "leave"))
    assert (await bob.post(room_id, "leave", reason="no")).status == 200
    assert await alice.membership(room_id, bob) == "leave"
    before = await _events(api, room_id)
    assert (await bob.post(room_id, "leave")).status == 200
    assert await _events(api, room_id) == before
    _refused(await bob.post(room_id, "join"))
    assert (await alice.post(room_id, "leave")).status == 200
    assert (await alice.call("GET", "/joined_rooms")).json == {"joined_rooms": []}


async def test_forgetting(api: RoomsApi, alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    _refused(await bob.post(room_id, "forget"), "M_UNKNOWN", 400)
    await bob.post(room_id, "leave")
    assert (await bob.get_state(room_id, "m.room.create")).status == 200
    assert (await bob.post(room_id, "forget")).status == 200
    assert (await bob.post(room_id, "forget")).status == 200
    _refused(await bob.get_state(room_id, "m.room.create"))
    await bob.join(room_id)
    assert (await bob.get_state(room_id, "m.room.create")).status == 200


async def test_kicking(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    await carol.join(room_id)
    _refused(await bob.post(room_id, "kick", user_id=carol.user_id))
    _refused(await bob.post(room_id, "kick", user_id=alice.user_id))
    assert (await alice.post(room_id, "kick", user_id=carol.user_id, reason="noise")).status == 200
    state = await alice.all_state(room_id)
    member = state[("m.room.member", carol.user_id)]
    assert member["content"] == {"membership": "leave", "reason": "noise"}
    assert member["sender"] == alice.user_id
    assert member["unsigned"]["prev_content"] == {"membership": "join"}
    _refused(await alice.post(room_id, "kick", user_id=carol.user_id))
    _refused(await alice.post(room_id, "kick", user_id="@never:example.org"))
    _refused(await alice.post(room_id, "kick"), "M_MISSING_PARAM", 400)
    await carol.join(room_id)


async def test_taking_back_an_invitation(alice: User, bob: User) -> None:
    room_id = await alice.create(invite=[bob.user_id])
    assert (await alice.post(room_id, "kick", user_id=bob.user_id)).status == 200
    _refused(await bob.post(room_id, "join"))


async def test_banning_and_unbanning(api: RoomsApi, alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    _refused(await bob.post(room_id, "ban", user_id=carol.user_id))
    assert (await alice.post(room_id, "ban", user_id=bob.user_id, reason="spam")).status == 200
    assert (await alice.post(room_id, "ban", user_id=carol.user_id)).status == 200
    before = await _events(api, room_id)
    assert (await alice.post(room_id, "ban", user_id=carol.user_id)).status == 200
    assert await _events(api, room_id) == before
    for user in (bob, carol):
        _refused(await user.post(room_id, "join"))
        _refused(await user.call("POST", f"/knock/{room_id}"))
        _refused(await user.post(room_id, "leave"))
    _refused(await alice.post(room_id, "kick", user_id=bob.user_id))
    _refused(await bob.send_event(room_id, "m.room.message", {}))
    assert (await alice.post(room_id, "unban", user_id=bob.user_id)).status == 200
    for user_id in (bob.user_id, "@never:example.org"):
        _refused(await alice.post(room_id, "unban", user_id=user_id), "M_BAD_STATE")
    assert await alice.membership(room_id, bob) == "leave"
    await bob.join(room_id)


async def test_profiles_stand_in_member_events(api: RoomsApi, alice: User, bob: User) -> None:
    async with api.db.connection() as conn:
        for name, value in (("displayname", '"Bob"'), ("avatar_url", '"mxc://example.org/bob"'), ("m.tz", '"UTC"')):
            await conn.execute(
                "INSERT INTO profile_fields (user_id, name, value) VALUES ($1, $2, $3)", bob.user_id, name, value
            )
    profile = {"displayname": "Bob", "avatar_url": "mxc://example.org/bob"}
    room_id = await alice.create(invite=[bob.user_id])
    state = await alice.all_state(room_id)
    assert state[("m.room.member", bob.user_id)]["content"] == {"membership": "invite", **profile}
    await bob.join(room_id)
    state = await alice.all_state(room_id)
    assert state[("m.room.member", bob.user_id)]["content"] == {"membership": "join", **profile}
    own_name = {"membership": "join", "displayname": "Bobby"}
    assert (await bob.set_state(room_id, "m.room.member", own_name, bob.user_id)).status == 200
    assert (await alice.get_state(room_id, "m.room.member", bob.user_id)).json["displayname"] == "Bobby"


async def test_guests_join_where_they_may(api: RoomsApi, alice: User) -> None:
    guest = await api.user("guest", is_guest=True)
    closed = await alice.create(preset="public_chat")
    _refused(await guest.post(closed, "join"), "M_GUEST_ACCESS_FORBIDDEN")
    await alice.set_state(closed, "m.room.guest_access", {"guest_access": "can_join"})
    await guest.join(closed)
    assert (await guest.send_event(closed, "org.example.any", {})).status == 200
    await alice.set_state(closed, "m.room.guest_access", {"guest_access": "forbidden"})
    assert await alice.membership(closed, guest) == "leave"
    _refused(await guest.send_event(closed, "org.example.any", {}))
    _refused(await guest.post(closed, "invite", user_id=alice.user_id), "M_GUEST_ACCESS_FORBIDDEN")


async def test_suspended_users_may_only_leave(api: RoomsApi, alice: User) -> None:
    suspended = await api.user("suspended", is_suspended=True)
    room_id = await alice.create(preset="public_chat", invite=[suspended.user_id])
    for target in (f"/join/{room_id}", f"/rooms/{room_id}/join", f"/knock/{room_id}"):
        _refused(await suspended.call("POST", target), "M_USER_SUSPENDED")
    for action in ("invite", "kick", "ban", "unban"):
        _refused(await suspended.post(room_id, action, user_id=alice.user_id), "M_USER_SUSPENDED")
    join = await suspended.set_state(room_id, "m.room.member", {"membership": "join"}, suspended.user_id)
    _refused(join, "M_USER_SUSPENDED")
    assert (await suspended.post(room_id, "leave")).status == 200


async def test_memberships_through_state_events(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create(preset="public_chat")
    join = await bob.set_state(room_id, "m.room.member", {"membership": "join", "org.x": 1}, bob.user_id)
    assert join.status == 200
    again = await bob.set_state(room_id, "m.room.member", {"membership": "join", "org.x": 1}, bob.user_id)
    assert again.json == join.json
    _refused(await alice.set_state(room_id, "m.room.member", {"membership": "join"}, carol.user_id))
    _refused(await alice.set_state(room_id, "m.room.member", {"membership": "knock"}, carol.user_id))
    _refused(await alice.set_state(room_id, "m.room.member", {"membership": "dance"}, bob.user_id), "M_BAD_JSON", 400)
    _refused(await alice.set_state(room_id, "m.room.member", {}, bob.user_id), "M_BAD_JSON", 400)
    _refused(await alice.set_state(room_id, "m.room.member", {"membership": "ban"}, "bob"), "M_INVALID_PARAM", 400)
    for membership in ("leave", "ban", "leave", "invite"):
        change = await alice.set_state(room_id, "m.room.member", {"membership": membership}, bob.user_id)
        assert change.status == 200, change.body
        assert await alice.membership(room_id, bob) == membership


def _restricted(*allow: Any, join_rule: str = "restricted") -> list[dict[str, Any]]:
    return [{"type": "m.room.join_rules", "content": {"join_rule": join_rule, "allow": list(allow)}}]


@pytest.mark.parametrize("version", [version for version in ROOM_VERSIONS if int(version) >= 8])
async def test_restricted_rooms(alice: User, bob: User, carol: User, version: str) -> None:
    club = await alice.create(preset="public_chat")
    condition = {"type": "m.room_membership", "room_id": club}
    room_id = await alice.create(
        room_version=version, initial_state=_restricted("junk", {"type": "org.example.other"}, condition)
    )
    _refused(await bob.post(room_id, "join"))
    await bob.join(club)
    await bob.join(room_id)
    member = (await alice.get_state(room_id, "m.room.member", bob.user_id)).json
    assert member["join_authorised_via_users_server"] == alice.user_id
    await bob.join(room_id)
    await carol.join(club)
    await carol.post(club, "leave")
    _refused(await carol.post(room_id, "join"))
    await alice.post(room_id, "invite", user_id=carol.user_id)
    await carol.join(room_id)
    assert (
        "join_authorised_via_users_server" not in (await alice.get_state(room_id, "m.room.member", carol.user_id)).json
    )


async def test_a_restricted_room_needs_somebody_who_may_invite(alice: User, bob: User, carol: User) -> None:
    club = await alice.create(preset="public_chat")
    await bob.join(club)
    condition = {"type": "m.room_membership", "room_id": club}
    room_id = await alice.create(
        room_version="11",
        initial_state=_restricted(condition),
        invite=[carol.user_id],
        power_level_content_override={"invite": 50, "users": {str(alice.user_id): 100, str(carol.user_id): 50}},
    )
    await carol.join(room_id)
    await alice.post(room_id, "leave")
    await bob.join(room_id)
    member = (await bob.get_state(room_id, "m.room.member", bob.user_id)).json
    assert member["join_authorised_via_users_server"] == carol.user_id
    await carol.post(room_id, "leave")
    await bob.post(room_id, "leave")
    _refused(await bob.post(room_id, "join"))


async def test_nobody_chooses_who_vouches(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    content = {"membership": "join", "join_authorised_via_users_server": "@eve:example.org"}
    await bob.set_state(room_id, "m.room.member", content, bob.user_id)
    assert (await alice.get_state(room_id, "m.room.member", bob.user_id)).json == {"membership": "join"}


async def test_knock_restricted_rooms_take_both(alice: User, bob: User, carol: User) -> None:
    club = await alice.create(preset="public_chat")
    condition = {"type": "m.room_membership", "room_id": club}
    room_id = await alice.create(initial_state=_restricted(condition, join_rule="knock_restricted"))
    _refused(await bob.post(room_id, "join"))
    assert (await bob.call("POST", f"/knock/{room_id}")).status == 200
    await bob.join(club)
    await bob.join(room_id)


async def test_the_room_summary_counts_members(api: RoomsApi, alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create(preset="public_chat", invite=[carol.user_id], name="Pub\u0000lic")
    await bob.join(room_id)
    query = "SELECT s.* FROM room_summaries s JOIN rooms USING (room_nid) WHERE room_id = $1"
    async with api.db.connection() as conn:
        row = await conn.fetchrow(query, room_id)
        assert row is not None
        assert (row["joined_members"], row["invited_members"], row["local_joined_members"]) == (2, 1, 2)
        assert (row["name"], row["join_rule"]) == ("Public", "public")
        await carol.join(room_id)
        await bob.post(room_id, "leave")
        row = await conn.fetchrow(query, room_id)
    assert row is not None
    assert (row["joined_members"], row["invited_members"], row["local_joined_members"]) == (2, 0, 2)


async def test_an_account_that_is_closed_leaves_everything(api: RoomsApi, alice: User, bob: User) -> None:
    joined, invited = await alice.create(preset="public_chat"), await alice.create(invite=[bob.user_id])
    banned = await alice.create(preset="public_chat")
    await bob.join(joined)
    await bob.join(banned)
    await alice.post(banned, "ban", user_id=bob.user_id)
    await api.memberships.leave_all(bob.user_id)
    memberships = [await alice.membership(room_id, bob) for room_id in (joined, invited, banned)]
    assert memberships == ["leave", "leave", "ban"]


async def test_members_are_woken(api: RoomsApi, alice: User, bob: User) -> None:
    room_id = RoomId(await alice.create())
    with api.bus.subscribe() as wakes:
        await alice.post(room_id, "invite", user_id=bob.user_id)
        wake = await wakes.next()
    assert wake.keys == {f"room:{room_id}", f"state:{room_id}", f"user:{bob.user_id}"}
