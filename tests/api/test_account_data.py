"""Account data and tags: https://spec.matrix.org/v1.19/client-server-api/#client-config."""

import asyncio
from typing import Any

import orjson
import pytest

from homeserver.core.ids import RoomId, UserId
from storage import account_data
from tests.api.server import Client, Server, refused

USER = "/user/@alice:test"
ROOM = "!room:test"
GLOBAL = f"{USER}/account_data"
IN_ROOM = f"{USER}/rooms/{ROOM}/account_data"
TAGS = f"{USER}/rooms/{ROOM}/tags"


@pytest.mark.parametrize("base", [GLOBAL, IN_ROOM], ids=["account", "room"])
@pytest.mark.parametrize("content", [{}, {"a": {"b": [1, 2.5, None, "x\0y"]}, "n": 2**62, "u": "🙂"}])
async def test_content_is_kept(alice: Client, base: str, content: Any) -> None:
    refused(await alice.call("GET", f"{base}/org.example"), 404, "M_NOT_FOUND")
    await alice.put(f"{base}/org.example", {"first": 1})
    await alice.put(f"{base}/org.example", content)
    assert await alice.get(f"{base}/org.example") == content


async def test_account_and_rooms_are_apart(alice: Client) -> None:
    await alice.put(f"{GLOBAL}/org.example", {"where": "account"})
    await alice.put(f"{IN_ROOM}/org.example", {"where": "room"})
    assert await alice.get(f"{GLOBAL}/org.example") == {"where": "account"}
    assert await alice.get(f"{IN_ROOM}/org.example") == {"where": "room"}
    refused(await alice.call("GET", f"{USER}/rooms/!other:test/account_data/org.example"), 404, "M_NOT_FOUND")


@pytest.mark.parametrize("base", [GLOBAL, IN_ROOM], ids=["account", "room"])
@pytest.mark.parametrize("kind", ["m.fully_read", "m.push_rules"])
async def test_what_the_server_looks_after(alice: Client, base: str, kind: str) -> None:
    refused(await alice.call("PUT", f"{base}/{kind}", {}), 405, "M_BAD_JSON")
    refused(await alice.call("GET", f"{base}/{kind}"), 404, "M_NOT_FOUND")


@pytest.mark.parametrize("base", [GLOBAL, IN_ROOM, TAGS], ids=["account", "room", "tags"])
async def test_others_have_no_access(bob: Client, base: str) -> None:
    refused(await bob.call("PUT", f"{base}/org.example", {}), 403, "M_FORBIDDEN")
    path = base if base == TAGS else f"{base}/org.example"
    refused(await bob.call("GET", path), 403, "M_FORBIDDEN")
    refused(await bob.call("DELETE", f"{TAGS}/x"), 403, "M_FORBIDDEN")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b'"x"', b"null", b'{"a": "\\ud800"}', b'{"a": 1e999}'])
async def test_contents_that_are_refused(server: Server, alice: Client, body: bytes) -> None:
    for path in (f"{GLOBAL}/org.example", f"{IN_ROOM}/org.example"):
        reply = await server.request("PUT", path, body=body, token=alice.token)
        assert (reply.status, reply.json["errcode"]) in ((400, "M_BAD_JSON"), (400, "M_NOT_JSON"))
    refused(await alice.call("GET", f"{GLOBAL}/org.example"), 404, "M_NOT_FOUND")


async def test_paths_that_are_refused(alice: Client) -> None:
    wrong_room = await alice.call("PUT", f"{USER}/rooms/room/account_data/org.example", {})
    refused(wrong_room, 400, "M_INVALID_PARAM")
    refused(await alice.call("GET", f"{USER}/rooms/room/account_data/org.example"), 400, "M_INVALID_PARAM")
    refused(await alice.call("PUT", "/user/alice/account_data/org.example", {}), 400, "M_INVALID_PARAM")
    refused(await alice.call("PUT", f"{GLOBAL}/{'x' * 256}", {}), 400, "M_INVALID_PARAM")


async def test_changes_are_found_in_the_stream(server: Server, alice: Client) -> None:
    since = await server.hub.bound()
    with server.hub.subscribe({"user:@alice:test"}) as waiter:
        await alice.put(f"{GLOBAL}/org.example", {"n": 1})
        assert await waiter.wait(10)
    await alice.put(f"{IN_ROOM}/org.example", {"n": 2})
    await alice.put(f"{GLOBAL}/org.example", {})
    upto = await server.hub.bound()
    async with server.db.connection() as conn:
        rows = await account_data.list_changed(conn, UserId("@alice:test"), since=since, upto=upto)
        assert [(row.room_id, row.type, row.content) for row in rows] == [
            (RoomId(ROOM), "org.example", '{"n":2}'),
            (None, "org.example", "{}"),
        ]
        assert await account_data.list_changed(conn, UserId("@alice:test"), since=upto, upto=upto + 9) == []
        of_room = await account_data.list_of_rooms(conn, UserId("@alice:test"), room_ids=[ROOM], upto=upto)
        assert [row.content for row in of_room] == ['{"n":2}']


async def test_ignored_users(server: Server, alice: Client) -> None:
    listed = {"@bob:test": {}, "@carol:elsewhere": {"x": 1}, "no user": {}, "@alice:test": {}}
    await alice.put(f"{GLOBAL}/m.ignored_user_list", {"ignored_users": listed})
    assert (await alice.get(f"{GLOBAL}/m.ignored_user_list"))["ignored_users"] == listed

    async def ignored() -> set[str]:
        async with server.db.connection() as conn:
            return set(await account_data.ignored_users(conn, UserId("@alice:test")))

    assert await ignored() == {"@bob:test", "@carol:elsewhere"}
    async with server.db.connection() as conn:
        among = ["@alice:test", "@dave:test"]
        assert await account_data.ignoring_users(conn, ignored=UserId("@bob:test"), among=among) == {"@alice:test"}
        assert await account_data.ignoring_users(conn, ignored=UserId("@eve:test"), among=among) == set()
    await alice.put(f"{GLOBAL}/m.ignored_user_list", {"ignored_users": {"@eve:test": {}}})
    assert await ignored() == {"@eve:test"}
    contents: list[Any] = [{}, {"ignored_users": []}, {"ignored_users": "@bob:test"}, {"ignored_users": None}]
    for content in contents:
        await alice.put(f"{GLOBAL}/m.ignored_user_list", content)
        assert await ignored() == set()
    await alice.put(f"{IN_ROOM}/m.ignored_user_list", {"ignored_users": listed})
    assert await ignored() == set(), "a room's data of that type says nothing"


async def test_tags(server: Server, alice: Client) -> None:
    assert await alice.get(TAGS) == {"tags": {}}
    await alice.put(f"{TAGS}/m.favourite", {"order": 0.25})
    await alice.put(f"{TAGS}/u.Wörk", {})
    await alice.put(f"{TAGS}/m.lowpriority", {"order": 1, "org.example": "kept"})
    tags = {"m.favourite": {"order": 0.25}, "u.Wörk": {}, "m.lowpriority": {"order": 1, "org.example": "kept"}}
    assert await alice.get(TAGS) == {"tags": tags}
    assert await alice.get(f"{IN_ROOM}/m.tag") == {"tags": tags}
    await alice.delete(f"{TAGS}/m.favourite")
    await alice.delete(f"{TAGS}/m.favourite")
    assert set((await alice.get(TAGS))["tags"]) == {"u.Wörk", "m.lowpriority"}
    legacy = await server.request("GET", f"/_matrix/client/r0{TAGS}", token=alice.token)
    assert set(legacy.json["tags"]) == {"u.Wörk", "m.lowpriority"}


async def test_tags_set_at_once_do_not_lose_each_other(alice: Client) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(alice.put(f"{TAGS}/u.{number}", {}))
    assert len((await alice.get(TAGS))["tags"]) == 8


@pytest.mark.parametrize(
    ("tag", "content", "errcode"),
    [
        ("u.x", {"order": -0.1}, "M_BAD_JSON"),
        ("u.x", {"order": 1.1}, "M_BAD_JSON"),
        ("u.x", {"order": "0.5"}, "M_BAD_JSON"),
        ("u.x", {"order": True}, "M_BAD_JSON"),
        ("u.x", [], "M_BAD_JSON"),
        ("u." + "x" * 255, {}, "M_INVALID_PARAM"),
    ],
)
async def test_wrong_tags(alice: Client, tag: str, content: Any, errcode: str) -> None:
    refused(await alice.call("PUT", f"{TAGS}/{tag}", content), 400, errcode)
    assert await alice.get(TAGS) == {"tags": {}}


async def test_tags_of_clients_that_write_nonsense(alice: Client) -> None:
    contents: list[Any] = [{"tags": 5}, {"tags": []}, {}]
    for content in contents:
        await alice.put(f"{IN_ROOM}/m.tag", content)
        assert await alice.get(TAGS) == {"tags": {}}
        await alice.put(f"{TAGS}/u.x", {})
        assert await alice.get(TAGS) == {"tags": {"u.x": {}}}


async def test_a_room_has_a_number_of_tags(server: Server, alice: Client) -> None:
    many: Any = {"tags": {f"u.{number}": {} for number in range(100)}}
    await alice.put(f"{IN_ROOM}/m.tag", many)
    refused(await alice.call("PUT", f"{TAGS}/u.more", {}), 400, "M_INVALID_PARAM")
    await alice.put(f"{TAGS}/u.5", {"order": 0.5})
    large = orjson.dumps({"x": "y" * (2 * 1024 * 1024)})
    reply = await server.request("PUT", f"{GLOBAL}/org.example", body=large, token=alice.token)
    refused(reply, 413, "M_TOO_LARGE")
