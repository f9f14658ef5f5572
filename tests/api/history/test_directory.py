"""Aliases: /directory/room and /rooms/{roomId}/aliases."""

from urllib.parse import quote

import pytest

from tests.api.history.api import ReadingServer, User, refused


def _path(alias: str) -> str:
    return f"/directory/room/{quote(alias, safe='')}"


@pytest.mark.parametrize(
    "alias", ["#pub:example.org", "#☕:example.org", "#a/b%20?c:example.org", "#😀+&=:example.org"]
)
async def test_an_alias_can_be_made_resolved_listed_and_deleted(server: ReadingServer, alice: User, alias: str) -> None:
    room_id = await alice.create()
    await alice.put(_path(alias), {"room_id": room_id})
    found = await server.call("GET", _path(alias))
    assert found.json == {"room_id": room_id, "servers": ["example.org"]}
    assert (await alice.get(f"/rooms/{room_id}/aliases"))["aliases"] == [alias]
    assert (await alice.call("DELETE", _path(alias))).status == 200
    refused(await server.call("GET", _path(alias)), 404, "M_NOT_FOUND")
    refused(await alice.call("DELETE", _path(alias)), 404, "M_NOT_FOUND")
    assert (await alice.get(f"/rooms/{room_id}/aliases"))["aliases"] == []


async def test_an_alias_is_not_given_twice(alice: User, bob: User) -> None:
    room_id, other = await alice.create(), await bob.create()
    await alice.put(_path("#pub:example.org"), {"room_id": room_id})
    for user, room in ((alice, room_id), (bob, other)):
        refused(await user.call("PUT", _path("#pub:example.org"), {"room_id": room}), 409, "M_UNKNOWN")
    assert (await alice.get(_path("#pub:example.org")))["room_id"] == room_id


@pytest.mark.parametrize(
    ("alias", "body", "errcode"),
    [
        ("pub", {"room_id": "!a:example.org"}, "M_INVALID_PARAM"),
        ("#pub", {"room_id": "!a:example.org"}, "M_INVALID_PARAM"),
        ("#:example.org", {"room_id": "!a:example.org"}, "M_INVALID_PARAM"),
        ("#a b:example.org", {"room_id": "!a:example.org"}, "M_INVALID_PARAM"),
        ("#pub:elsewhere.org", {"room_id": "!a:example.org"}, "M_INVALID_PARAM"),
        (f"#{'a' * 255}:example.org", {"room_id": "!a:example.org"}, "M_INVALID_PARAM"),
        ("#a\0b:example.org", {"room_id": "!a:example.org"}, "M_INVALID_PARAM"),
        ("#pub:example.org", {"room_id": "nonsense"}, "M_INVALID_PARAM"),
        ("#pub:example.org", {"room_id": 5}, "M_BAD_JSON"),
        ("#pub:example.org", {}, "M_MISSING_PARAM"),
    ],
)
async def test_wrong_aliases(alice: User, alias: str, body: dict[str, object], errcode: str) -> None:
    refused(await alice.call("PUT", _path(alias), body), 400, errcode)


async def test_aliases_are_made_by_members(server: ReadingServer, alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    for room in (room_id, "!absent:example.org"):
        refused(await bob.call("PUT", _path("#pub:example.org"), {"room_id": room}), 403, "M_FORBIDDEN")
    guest = await server.user("guest", is_guest=True)
    reply = await guest.call("PUT", _path("#pub:example.org"), {"room_id": room_id})
    refused(reply, 403, "M_GUEST_ACCESS_FORBIDDEN")
    suspended = await server.user("suspended", is_suspended=True)
    refused(await suspended.call("PUT", _path("#pub:example.org"), {"room_id": room_id}), 403, "M_USER_SUSPENDED")
    await bob.join(room_id)
    await bob.put(_path("#pub:example.org"), {"room_id": room_id})


async def test_aliases_are_deleted_by_who_made_them_and_by_who_has_the_power(
    server: ReadingServer, alice: User, bob: User, carol: User
) -> None:
    room_id = await alice.create(preset="public_chat")
    for other in (bob, carol):
        await other.join(room_id)
    admin = await server.user("admin", is_admin=True)
    for remover, status in ((carol, 403), (bob, 200), (alice, 200), (admin, 200)):
        await bob.call("PUT", _path("#pub:example.org"), {"room_id": room_id})
        reply = await remover.call("DELETE", _path("#pub:example.org"))
        assert reply.status == status, remover.user_id
    await alice.put(_path("#pub:example.org"), {"room_id": room_id})
    await alice.leave(room_id)
    await alice.join(room_id)
    refused(await bob.call("DELETE", _path("#pub:example.org")), 403, "M_FORBIDDEN")
    refused(await bob.call("DELETE", _path("#pub:elsewhere.org")), 400, "M_INVALID_PARAM")


async def test_a_deleted_alias_is_taken_out_of_the_canonical_alias_by_who_may_do_that(alice: User, bob: User) -> None:
    room_id = await alice.create(room_alias_name="pub", preset="public_chat")
    await bob.join(room_id)
    for alias in ("#bar:example.org", "#inn:example.org"):
        await bob.put(_path(alias), {"room_id": room_id})
    names = {"alias": "#pub:example.org", "alt_aliases": ["#bar:example.org", "#inn:example.org"]}
    await alice.set_state(room_id, "m.room.canonical_alias", names)
    path = f"/rooms/{room_id}/state/m.room.canonical_alias/"
    assert (await bob.call("DELETE", _path("#bar:example.org"))).status == 200
    assert await alice.get(path) == names
    assert (await alice.call("DELETE", _path("#inn:example.org"))).status == 200
    assert await alice.get(path) == {"alias": "#pub:example.org", "alt_aliases": ["#bar:example.org"]}
    assert (await alice.call("DELETE", _path("#pub:example.org"))).status == 200
    assert await alice.get(path) == {"alt_aliases": ["#bar:example.org"]}


async def test_s20_aliases_are_listed_for_those_who_see_the_room(alice: User, bob: User) -> None:
    """The names of a room are told to its members, or to all if all may read it (lesson S20)."""
    room_id = await alice.create(room_alias_name="pub", preset="public_chat")
    path = f"/rooms/{room_id}/aliases"
    refused(await bob.call("GET", path), 403, "M_FORBIDDEN")
    await bob.join(room_id)
    assert (await bob.get(path))["aliases"] == ["#pub:example.org"]
    await bob.leave(room_id)
    refused(await bob.call("GET", path), 403, "M_FORBIDDEN")
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    assert (await bob.get(path))["aliases"] == ["#pub:example.org"]
    refused(await bob.call("GET", "/rooms/!absent:example.org/aliases"), 403, "M_FORBIDDEN")


async def test_aliases_of_other_servers_are_not_known_without_federation(server: ReadingServer) -> None:
    refused(await server.call("GET", _path("#pub:elsewhere.org")), 404, "M_NOT_FOUND")
    refused(await server.call("GET", _path("nonsense")), 400, "M_INVALID_PARAM")
