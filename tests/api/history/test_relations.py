"""GET /rooms/{roomId}/relations and /threads."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.api.history.api import ReadingServer, User, bodies, event_ids, refused


def _to(event_id: str, rel_type: str = "m.thread", **more: Any) -> dict[str, Any]:
    return {"rel_type": rel_type, "event_id": event_id, **more}


def _relations(room_id: str, event_id: str, *more: str) -> str:
    path = "/".join(("relations", quote(event_id), *(quote(each, safe="") for each in more)))
    return f"/_matrix/client/v1/rooms/{room_id}/{path}"


def _threads(room_id: str) -> str:
    return f"/_matrix/client/v1/rooms/{room_id}/threads"


async def test_children_by_relationship_and_type(alice: User) -> None:
    room_id = await alice.create()
    root = await alice.send(room_id, "root")
    reply = await alice.send(room_id, "in the thread", relates_to=_to(root))
    reaction = {"m.relates_to": _to(root, "m.annotation", key="👍")}
    thumb = await alice.send_event(room_id, "m.reaction", reaction)
    custom = await alice.send(room_id, "odd", relates_to=_to(root, "org.example/odd"))

    async def found(*more: str, **query: Any) -> list[str]:
        return event_ids((await alice.get(_relations(room_id, root, *more), **query))["chunk"])

    assert await found() == [custom, thumb, reply]
    assert await found(dir="f") == [reply, thumb, custom]
    assert await found("m.annotation") == [thumb]
    assert await found("org.example/odd") == [custom]
    assert await found("m.thread", "m.room.message") == [reply]
    assert await found("m.thread", "m.reaction") == []
    assert await found("m.reference") == []


async def test_pages_of_relations(server: ReadingServer, alice: User) -> None:
    room_id = await alice.create()
    root = await alice.send(room_id, "root")
    replies = [await alice.send(room_id, str(number), relates_to=_to(root)) for number in range(5)]
    path = _relations(room_id, root)
    first = await alice.get(path, limit=2)
    assert event_ids(first["chunk"]) == [replies[4], replies[3]]
    assert "prev_batch" not in first
    second = await alice.get(path, limit=2, **{"from": first["next_batch"]})
    assert event_ids(second["chunk"]) == [replies[2], replies[1]]
    assert second["prev_batch"] == first["next_batch"]
    last = await alice.get(path, limit=2, **{"from": second["next_batch"]})
    assert event_ids(last["chunk"]) == [replies[0]]
    assert "next_batch" not in last
    between = await alice.get(path, to=second["next_batch"], **{"from": first["next_batch"]})
    assert event_ids(between["chunk"]) == [replies[2], replies[1]]
    nothing = await alice.get(path, to=first["next_batch"], **{"from": second["next_batch"]})
    assert nothing["chunk"] == []
    forwards = await alice.get(path, dir="f", **{"from": second["next_batch"]})
    assert event_ids(forwards["chunk"]) == replies[1:]
    start = (await alice.messages(room_id, limit=1))["start"]
    assert event_ids((await alice.get(path, **{"from": start}))["chunk"]) == replies[::-1]


async def test_indirect_relations_up_to_a_depth(alice: User) -> None:
    room_id = await alice.create()
    root = await alice.send(room_id, "root")
    reply = await alice.send(room_id, "reply", relates_to=_to(root))
    edit = {"m.new_content": {"body": "edited"}, "body": "* edited", "m.relates_to": _to(reply, "m.replace")}
    edited = await alice.send_event(room_id, "m.room.message", edit)
    third = await alice.send(room_id, "third", relates_to=_to(edited, "m.reference"))
    await alice.send(room_id, "too far", relates_to=_to(third, "m.reference"))
    path = _relations(room_id, root)
    direct = await alice.get(path)
    assert event_ids(direct["chunk"]) == [reply]
    assert "recursion_depth" not in direct
    assert (await alice.get(path, recurse="false"))["recursion_depth"] == 1
    indirect = await alice.get(path, recurse="true")
    assert event_ids(indirect["chunk"]) == [third, edited, reply]
    assert indirect["recursion_depth"] == 3
    # What is filtered out on the way leads nowhere.
    threaded = await alice.get(_relations(room_id, root, "m.reference"), recurse="true")
    assert threaded["chunk"] == []


async def test_redacted_children_relate_to_nothing(alice: User) -> None:
    room_id = await alice.create()
    root = await alice.send(room_id, "root")
    reply = await alice.send(room_id, "reply", relates_to=_to(root))
    await alice.redact(room_id, reply)
    assert (await alice.get(_relations(room_id, root)))["chunk"] == []
    assert (await alice.get(_threads(room_id)))["chunk"] == []


async def test_s20_relations_obey_membership_and_visibility(alice: User, bob: User, carol: User) -> None:
    """Neither a hidden parent nor a hidden child is told, and absence looks the same (lessons S19, S20)."""
    state = [{"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}]
    room_id = await alice.create(preset="public_chat", initial_state=state)
    hidden = await alice.send(room_id, "hidden root")
    await alice.send(room_id, "hidden reply", relates_to=_to(hidden))
    await bob.join(room_id)
    root = await alice.send(room_id, "root")
    await alice.send(room_id, "one", relates_to=_to(root))
    await bob.leave(room_id)
    await alice.send(room_id, "two", relates_to=_to(root))
    assert bodies((await bob.get(_relations(room_id, root)))["chunk"]) == ["one"]
    assert bodies((await bob.get(_threads(room_id)))["chunk"]) == ["root"]
    assert bodies((await alice.get(_threads(room_id)))["chunk"]) == ["root", "hidden root"]
    absent = await carol.call("GET", _relations(room_id, "$absent"))
    refused(absent, 404, "M_NOT_FOUND")
    for reader, event_id in ((bob, hidden), (bob, "$absent"), (carol, root), (carol, hidden)):
        assert (await reader.call("GET", _relations(room_id, event_id))).body == absent.body
    refused(await carol.call("GET", _threads(room_id)), 403, "M_FORBIDDEN")
    other = await alice.create()
    refused(await alice.call("GET", _relations(other, root)), 404, "M_NOT_FOUND")


async def test_s20_aggregations_count_only_what_is_visible(alice: User, bob: User) -> None:
    """Neither how many hidden children there are is told, nor their ids (lesson S20)."""
    state = [{"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "invited"}}]
    room_id = await alice.create(initial_state=state, preset="private_chat")
    await alice.invite(room_id, bob)
    root = await alice.send(room_id, "root")
    parts = []
    for body in ("seen when invited", "seen when joined", "not seen"):
        await alice.send(room_id, body, relates_to=_to(root))
        parts.append(await alice.send(room_id, body, relates_to=_to(root, "m.reference")))
        if body == "seen when invited":
            await bob.join(room_id)
        elif body == "seen when joined":
            await bob.leave(room_id)

    async def aggregated(reader: User) -> tuple[int, str, list[str]]:
        page = await reader.get(f"/rooms/{room_id}/messages", dir="b", limit=50)
        bundle = next(event for event in page["chunk"] if event["event_id"] == root)["unsigned"]["m.relations"]
        thread = bundle["m.thread"]
        return thread["count"], thread["latest_event"]["content"]["body"], event_ids(bundle["m.reference"]["chunk"])

    assert await aggregated(alice) == (3, "not seen", parts)
    assert await aggregated(bob) == (2, "seen when joined", parts[:2])


async def test_children_by_ignored_users_are_left_out(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    root = await alice.send(room_id, "root")
    await bob.send(room_id, "noise", relates_to=_to(root))
    await alice.ignore(bob)
    assert (await alice.get(_relations(room_id, root)))["chunk"] == []
    assert (await alice.get(_threads(room_id)))["chunk"] == []


@pytest.mark.parametrize(
    "query",
    [{"dir": "x"}, {"limit": "0"}, {"limit": "x"}, {"from": "x"}, {"to": "x"}, {"recurse": "maybe"}],
)
async def test_wrong_parameters_of_relations(alice: User, query: dict[str, str]) -> None:
    room_id = await alice.create()
    root = await alice.send(room_id)
    refused(await alice.call("GET", _relations(room_id, root), **query), 400, "M_INVALID_PARAM")
    refused(await alice.call("GET", _relations(room_id, "nonsense")), 400, "M_INVALID_PARAM")


async def test_threads_come_in_the_order_of_their_latest_event(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    roots = [await alice.send(room_id, f"root {number}") for number in range(3)]
    for root in (roots[1], roots[0], roots[2], roots[1]):
        await bob.send(room_id, "reply", relates_to=_to(root))
    await bob.send(room_id, "no thread", relates_to=_to(roots[0], "m.reference"))
    page = await alice.get(_threads(room_id))
    assert event_ids(page["chunk"]) == [roots[1], roots[2], roots[0]]
    thread = page["chunk"][0]["unsigned"]["m.relations"]["m.thread"]
    assert (thread["count"], thread["current_user_participated"]) == (2, True)
    assert thread["latest_event"]["content"]["body"] == "reply"
    assert "next_batch" not in page


async def test_pages_of_threads(alice: User) -> None:
    room_id = await alice.create()
    roots = []
    for number in range(5):
        roots.append(await alice.send(room_id, f"root {number}"))
        await alice.send(room_id, "reply", relates_to=_to(roots[-1]))
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = await alice.get(_threads(room_id), **query)
        seen += event_ids(page["chunk"])
        if "next_batch" not in page:
            break
        query["from"] = page["next_batch"]
    assert seen == roots[::-1]


async def test_threads_in_which_one_has_participated(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create(preset="public_chat")
    for other in (bob, carol):
        await other.join(room_id)
    first, second = await alice.send(room_id, "first"), await alice.send(room_id, "second")
    for root in (first, second):
        await bob.send(room_id, "reply", relates_to=_to(root))
    await carol.send(room_id, "me too", relates_to=_to(first))

    async def roots(user: User) -> set[str]:
        return set(event_ids((await user.get(_threads(room_id), include="participated"))["chunk"]))

    assert await roots(carol) == {first}
    assert await roots(alice) == await roots(bob) == {first, second}
    refused(await alice.call("GET", _threads(room_id), include="mine"), 400, "M_INVALID_PARAM")
    refused(await alice.call("GET", _threads(room_id), limit="0"), 400, "M_INVALID_PARAM")
    refused(await alice.call("GET", _threads(room_id), **{"from": "s1"}), 400, "M_INVALID_PARAM")


async def test_the_root_of_an_ignored_user_comes_without_its_content(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    root = await bob.send(room_id, "noise")
    await alice.send(room_id, "an answer", relates_to=_to(root))
    await alice.ignore(bob)
    (shown,) = (await alice.get(_threads(room_id)))["chunk"]
    assert (shown["event_id"], shown["content"]) == (root, {})
    assert shown["unsigned"]["m.relations"]["m.thread"]["count"] == 1


async def test_an_edit_of_an_edit_is_no_edit(alice: User) -> None:
    room_id = await alice.create()
    original = await alice.send(room_id, "original")
    content = {"msgtype": "m.text", "body": "* x", "m.new_content": {"msgtype": "m.text", "body": "x"}}
    edit = await alice.send_event(room_id, "m.room.message", {**content, "m.relates_to": _to(original, "m.replace")})
    await alice.send_event(room_id, "m.room.message", {**content, "m.relates_to": _to(edit, "m.replace")})
    bundled = (await alice.get(f"/rooms/{room_id}/event/{original}"))["unsigned"]["m.relations"]["m.replace"]
    assert bundled["event_id"] == edit
    assert "m.relations" not in (await alice.get(f"/rooms/{room_id}/event/{edit}"))["unsigned"]
