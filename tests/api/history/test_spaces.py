"""GET /rooms/{roomId}/hierarchy."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.api.history.api import ReadingServer, User, refused


def _path(room_id: str) -> str:
    return f"/_matrix/client/v1/rooms/{quote(room_id)}/hierarchy"


async def _space(user: User, **body: Any) -> str:
    return await user.create(**{"preset": "public_chat", "creation_content": {"type": "m.space"}, **body})


async def _room(user: User, **body: Any) -> str:
    return await user.create(**{"preset": "public_chat", **body})


async def _add(user: User, space: str, *children: str, **content: Any) -> None:
    for child in children:
        await user.set_state(space, "m.space.child", {"via": ["example.org"], **content}, child)


async def _walk(user: User, space: str, **query: Any) -> list[str]:
    return [room["room_id"] for room in (await user.get(_path(space), **query))["rooms"]]


async def test_a_space_with_its_children(alice: User, bob: User) -> None:
    space = await _space(alice, name="The Space", room_version="11")
    child = await _room(alice, name="A room")
    await _add(alice, space, child, suggested=True)
    shown = await bob.get(_path(space))
    assert "next_batch" not in shown
    root, room = shown["rooms"]
    (link,) = root.pop("children_state")
    assert root == {
        "room_id": space,
        "name": "The Space",
        "room_type": "m.space",
        "join_rule": "public",
        "num_joined_members": 1,
        "world_readable": False,
        "guest_can_join": False,
        "room_version": "11",
    }
    assert link.pop("origin_server_ts") > 0
    assert link == {
        "type": "m.space.child",
        "state_key": child,
        "sender": alice.user_id,
        "content": {"via": ["example.org"], "suggested": True},
    }
    assert (room["room_id"], room["children_state"]) == (child, [])


async def test_the_walk_goes_depth_first_in_the_order_of_children(alice: User) -> None:
    space, inner = await _space(alice), await _space(alice)
    first, second, third, deep = [await _room(alice) for _ in range(4)]
    await _add(alice, space, third)
    await _add(alice, space, second, order="b")
    await _add(alice, space, inner, order="ab")
    await _add(alice, space, first, order="aa")
    await _add(alice, inner, deep)
    assert await _walk(alice, space) == [space, first, inner, deep, second, third]
    assert await _walk(alice, space, max_depth=1) == [space, first, inner, second, third]
    assert await _walk(alice, space, max_depth=0) == [space]
    assert await _walk(alice, space, max_depth=10**6) == [space, first, inner, deep, second, third]


async def test_loops_end_and_rooms_come_once(alice: User) -> None:
    space, inner = await _space(alice), await _space(alice)
    room = await _room(alice)
    await _add(alice, space, inner, space, room)
    await _add(alice, inner, space, room)
    walked = await _walk(alice, space)
    assert sorted(walked) == sorted({space, inner, room})


async def test_only_suggested_rooms(alice: User) -> None:
    space = await _space(alice)
    suggested, other = await _room(alice), await _room(alice)
    await _add(alice, space, suggested, suggested=True)
    await _add(alice, space, other)
    shown = (await alice.get(_path(space), suggested_only="true"))["rooms"]
    assert [room["room_id"] for room in shown] == [space, suggested]
    assert [link["state_key"] for link in shown[0]["children_state"]] == [suggested]


async def test_what_is_no_child(alice: User) -> None:
    space = await _space(alice)
    removed, plain, below = await _room(alice), await _room(alice), await _room(alice)
    await _add(alice, space, removed, plain)
    await alice.set_state(space, "m.space.child", {}, removed)
    await alice.set_state(space, "m.space.child", {"via": ["example.org"]}, "nonsense")
    await alice.set_state(space, "m.space.child", {"via": "example.org"}, below)
    await _add(alice, space, "!absent:example.org")
    # A room that is no space has no children.
    await _add(alice, plain, below)
    shown = (await alice.get(_path(space)))["rooms"]
    assert [room["room_id"] for room in shown] == [space, plain]
    assert [link["state_key"] for link in shown[0]["children_state"]] == [plain, "!absent:example.org"]
    assert shown[1]["children_state"] == []


async def test_pages_continue_the_walk(alice: User) -> None:
    space = await _space(alice)
    children = [await _room(alice) for _ in range(5)]
    await _add(alice, space, *children)
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = await alice.get(_path(space), **query)
        assert len(page["rooms"]) <= 2
        seen += [room["room_id"] for room in page["rooms"]]
        if "next_batch" not in page:
            break
        query["from"] = page["next_batch"]
    assert seen == [space, *children]


async def test_a_token_holds_for_its_own_request_and_not_for_ever(server: ReadingServer, alice: User) -> None:
    space = await _space(alice)
    await _add(alice, space, await _room(alice))
    token = (await alice.get(_path(space), limit=1, max_depth=3))["next_batch"]
    assert len(await _walk(alice, space, max_depth=3, **{"from": token})) == 1
    for query in ({"max_depth": 2}, {}, {"max_depth": 3, "suggested_only": "true"}):
        refused(await alice.call("GET", _path(space), **{"from": token, **query}), 400, "M_INVALID_PARAM")
    started_ms, rest = token[1:].split("_", 1)
    old = f"h{int(started_ms) - 2 * 60 * 60 * 1000}_{rest}"
    for wrong in (old, "nonsense", token + "0" * 9):
        refused(await alice.call("GET", _path(space), max_depth=3, **{"from": wrong}), 400, "M_INVALID_PARAM")


async def test_s20_hidden_rooms_are_neither_shown_nor_entered(alice: User, bob: User) -> None:
    """Of rooms that one may not know of, neither names nor children are told (lesson S20)."""
    space, hidden = await _space(alice), await _space(alice, preset="private_chat", name="Secret")
    below = await _room(alice)
    await _add(alice, space, hidden)
    await _add(alice, hidden, below)
    assert await _walk(alice, space) == [space, hidden, below]
    assert await _walk(bob, space) == [space]
    allow = [{"type": "m.room_membership", "room_id": space}]
    await alice.set_state(hidden, "m.room.join_rules", {"join_rule": "restricted", "allow": allow})
    assert await _walk(bob, space) == [space]
    await bob.join(space)
    assert await _walk(bob, space) == [space, hidden, below]
    refused(await bob.call("GET", _path("!absent:example.org")), 403, "M_FORBIDDEN")


async def test_s20_the_root_must_be_known_too(alice: User, bob: User) -> None:
    """A private space and one that does not exist are refused alike (lessons S19, S20)."""
    private = await _space(alice, preset="private_chat")
    refused(await bob.call("GET", _path(private)), 403, "M_FORBIDDEN")
    assert (await bob.call("GET", _path(private))).body == (await bob.call("GET", _path("!absent:example.org"))).body


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "x"}, {"max_depth": "-1"}, {"suggested_only": "yes"}, {"from": "h1_1_0_1"}]
)
async def test_wrong_parameters(alice: User, query: dict[str, str]) -> None:
    space = await _space(alice)
    refused(await alice.call("GET", _path(space), **query), 400, "M_INVALID_PARAM")


async def test_the_number_of_statements_does_not_grow_with_the_rooms(server: ReadingServer, alice: User) -> None:
    small, large = await _space(alice), await _space(alice)
    children = [await _room(alice) for _ in range(8)]
    await _add(alice, small, children[0])
    await _add(alice, large, *children)
    few = await server.statements_of(alice, _path(small))
    many = await server.statements_of(alice, _path(large))
    assert many.statements == few.statements
