"""GET /events, /initialSync and /rooms/{roomId}/initialSync."""

import asyncio
from typing import Any

import pytest

from tests.api.history.api import ReadingServer, User, bodies, event_ids, refused

_VISIBLE = {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "world_readable"}}


async def _now(user: User, **query: Any) -> str:
    """A token for what comes from now on."""
    return str((await user.get("/events", timeout=0, **query))["end"])


async def _next(user: User, token: str, event_type: str, **query: Any) -> dict[str, Any]:
    """The next event of a type."""
    async with asyncio.timeout(20):
        while True:
            page = await user.get("/events", timeout=5000, **{"from": token, **query})
            token = page["end"]
            for event in page["chunk"]:
                if event["type"] == event_type:
                    return dict(event)


async def test_events_of_all_rooms_come_in_order(alice: User, bob: User) -> None:
    first, second = await alice.create(preset="public_chat"), await alice.create()
    await bob.join(first)
    token = await _now(alice)
    sent = [await bob.send(first, "one"), await alice.send(second, "two"), await bob.send(first, "three")]
    page = await alice.get("/events", timeout=0, **{"from": token})
    assert [event["event_id"] for event in page["chunk"] if event["type"] == "m.room.message"] == sent
    assert page["start"] == token
    assert page["chunk"][0]["user_id"] == page["chunk"][0]["sender"] == bob.user_id
    again = await alice.get("/events", timeout=0, **{"from": page["end"]})
    assert [event for event in again["chunk"] if "event_id" in event] == []


async def test_a_limit_tears_nothing_apart(alice: User) -> None:
    token = await _now(alice)
    room_id = await alice.create()
    sent = [await alice.send(room_id, str(number)) for number in range(10)]
    seen: list[str] = []
    for _ in range(20):
        page = await alice.get("/events", timeout=0, limit=3, **{"from": token})
        seen += [event["event_id"] for event in page["chunk"] if event["type"] == "m.room.message"]
        token = page["end"]
    assert seen == sent


async def test_listening_waits_for_news(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    token = await _now(alice)
    async with asyncio.TaskGroup() as tasks:
        heard = tasks.create_task(_next(alice, token, "m.room.message"))
        await bob.send(room_id, "news")
    assert heard.result()["content"]["body"] == "news"


async def test_invitations_and_departures_are_heard(alice: User, bob: User) -> None:
    room_id = await alice.create()
    token = await _now(bob)
    await alice.send(room_id, "not for bob")
    await alice.invite(room_id, bob)
    page = await bob.get("/events", timeout=0, **{"from": token})
    events = [event for event in page["chunk"] if "event_id" in event]
    assert [(event["type"], event["content"]["membership"]) for event in events] == [("m.room.member", "invite")]
    await bob.leave(room_id)
    left = await bob.get("/events", timeout=0, **{"from": page["end"]})
    assert [event["content"].get("membership") for event in left["chunk"] if "event_id" in event] == ["leave"]


async def test_what_belongs_to_no_event_is_heard_too(server: ReadingServer, alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    event_id = await alice.send(room_id)
    token = await _now(alice)
    await bob.post(f"/rooms/{room_id}/receipt/m.read/{event_id}")
    await bob.put(f"/rooms/{room_id}/typing/{bob.user_id}", {"typing": True, "timeout": 5000})
    await alice.put(f"/user/{alice.user_id}/account_data/org.example.mine", {"a": 1})
    await alice.put(f"/user/{alice.user_id}/rooms/{room_id}/account_data/m.tag", {"tags": {"u.work": {}}})
    await bob.put(f"/presence/{bob.user_id}/status", {"presence": "online", "status_msg": "here"})
    receipt = await _next(alice, token, "m.receipt")
    assert receipt["room_id"] == room_id
    assert receipt["content"][event_id]["m.read"][bob.user_id]["ts"] > 0
    typing = await _next(alice, token, "m.typing")
    assert (typing["room_id"], typing["content"]) == (room_id, {"user_ids": [bob.user_id]})
    mine = await _next(alice, token, "org.example.mine")
    assert mine["content"] == {"a": 1}
    tag = await _next(alice, token, "m.tag")
    assert (tag["room_id"], tag["content"]) == (room_id, {"tags": {"u.work": {}}})
    presence = await _next(alice, token, "m.presence")
    assert presence["content"]["user_id"] in (alice.user_id, bob.user_id)


async def test_previews_of_world_readable_rooms(server: ReadingServer, alice: User) -> None:
    guest = await server.user("guest", is_guest=True)
    room_id = await alice.create(initial_state=[_VISIBLE])
    other = await alice.create(initial_state=[_VISIBLE])
    token = (await guest.get(f"/rooms/{room_id}/initialSync"))["messages"]["end"]
    await alice.send(other, "elsewhere")
    sent = await alice.send(room_id, "public")
    page = await guest.get("/events", timeout=0, room_id=room_id, **{"from": token})
    assert event_ids([event for event in page["chunk"] if "event_id" in event]) == [sent]
    await alice.put(f"/presence/{alice.user_id}/status", {"presence": "online", "status_msg": "here"})
    presence = await _next(guest, page["end"], "m.presence", room_id=room_id)
    assert presence["content"]["user_id"] == alice.user_id
    await alice.post(f"/rooms/{room_id}/receipt/m.read/{sent}")
    assert sent in (await _next(guest, page["end"], "m.receipt", room_id=room_id))["content"]


async def test_s20_s21_rooms_are_previewed_only_while_everybody_may_read_them(
    server: ReadingServer, alice: User, bob: User
) -> None:
    """Who listens is looked at each time, and each event has its own visibility (lessons S20, S21)."""
    guest = await server.user("guest", is_guest=True)
    room_id = await alice.create(preset="public_chat")
    for outsider in (guest, bob):
        refused(await outsider.call("GET", "/events", room_id=room_id, timeout=0), 403, "M_FORBIDDEN")
        refused(await outsider.call("GET", f"/rooms/{room_id}/initialSync"), 403, "M_FORBIDDEN")
    await alice.set_state(room_id, "m.room.history_visibility", _VISIBLE["content"])
    token = await _now(bob, room_id=room_id)
    await alice.send(room_id, "public")
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "shared"})
    await alice.send(room_id, "private")
    refused(await bob.call("GET", "/events", room_id=room_id, timeout=0, **{"from": token}), 403, "M_FORBIDDEN")
    await alice.set_state(room_id, "m.room.history_visibility", _VISIBLE["content"])
    page = await bob.get("/events", room_id=room_id, timeout=0, **{"from": token})
    assert bodies([event for event in page["chunk"] if event["type"] == "m.room.message"]) == ["public"]
    await bob.join(room_id)
    token = await _now(bob, room_id=room_id)
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "shared"})
    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(bob.call("GET", "/events", room_id=room_id, timeout=15000, **{"from": token}))
        await bob.leave(room_id)
        await alice.send(room_id, "behind")
    reply = listening.result()
    if reply.status == 200:
        assert "behind" not in bodies([event for event in reply.json["chunk"] if "content" in event])
    else:
        refused(reply, 403, "M_FORBIDDEN")


async def test_guests_listen_to_single_rooms_only(server: ReadingServer) -> None:
    guest = await server.user("guest", is_guest=True)
    refused(await guest.call("GET", "/events", timeout=0), 403, "M_GUEST_ACCESS_FORBIDDEN")
    refused(await guest.call("GET", "/initialSync"), 403, "M_GUEST_ACCESS_FORBIDDEN")


@pytest.mark.parametrize(
    "query", [{"from": "x"}, {"from": "t1_1"}, {"timeout": "-1"}, {"limit": "0"}, {"room_id": "nonsense"}]
)
async def test_wrong_parameters(alice: User, query: dict[str, str]) -> None:
    refused(await alice.call("GET", "/events", **{"timeout": "0", **query}), 400, "M_INVALID_PARAM")
    for path in ("/initialSync", "/rooms/!a:example.org/initialSync"):
        refused(await alice.call("GET", path, limit="x"), 400, "M_INVALID_PARAM")


async def test_the_snapshot_of_a_room(server: ReadingServer, alice: User, bob: User) -> None:
    room_id = await alice.create(visibility="public", name="The Pub")
    await bob.join(room_id)
    sent = [await alice.send(room_id, str(number)) for number in range(3)]
    await bob.post(f"/rooms/{room_id}/receipt/m.read/{sent[0]}")
    await alice.put(f"/user/{alice.user_id}/rooms/{room_id}/account_data/m.tag", {"tags": {}})
    room = await alice.get(f"/rooms/{room_id}/initialSync", limit=2)
    assert (room["room_id"], room["membership"], room["visibility"]) == (room_id, "join", "public")
    assert event_ids(room["messages"]["chunk"]) == sent[1:]
    earlier = await alice.messages(room_id, limit=1, **{"from": room["messages"]["start"]})
    assert event_ids(earlier["chunk"]) == sent[:1]
    assert (await alice.messages(room_id, dir="f", **{"from": room["messages"]["end"]}))["chunk"] == []
    state = {(event["type"], event["state_key"]): event for event in room["state"]}
    assert state[("m.room.name", "")]["content"] == {"name": "The Pub"}
    assert state[("m.room.member", bob.user_id)]["user_id"] == bob.user_id
    assert room["account_data"] == [{"type": "m.tag", "content": {"tags": {}}}]
    assert [receipt["room_id"] for receipt in room["receipts"]] == [room_id]
    assert (await alice.get(f"/rooms/{room_id}/initialSync", limit=0))["messages"]["chunk"] == []


async def test_the_snapshot_of_a_room_that_was_left(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat", name="Before")
    await bob.join(room_id)
    await alice.send(room_id, "before")
    await bob.leave(room_id)
    await alice.set_state(room_id, "m.room.name", {"name": "Behind"})
    await alice.send(room_id, "behind")
    whole = (await bob.get("/initialSync", archived="true", limit=2))["rooms"]
    assert [room["room_id"] for room in whole] == [room_id]
    for room in (await bob.get(f"/rooms/{room_id}/initialSync", limit=2), whole[0]):
        assert room["membership"] == "leave"
        state = {(event["type"], event["state_key"]): event["content"] for event in room["state"]}
        assert state[("m.room.name", "")] == {"name": "Before"}
        assert state[("m.room.member", bob.user_id)]["membership"] == "leave"
        assert bodies(room["messages"]["chunk"]) == ["before"]
        assert not room.get("presence")
        assert not room.get("receipts")
    assert (await bob.get("/initialSync"))["rooms"] == []
    await bob.post(f"/rooms/{room_id}/forget")
    assert (await bob.get("/initialSync", archived="true"))["rooms"] == []


async def test_s20_who_rejected_an_invitation_is_told_nothing_of_the_room(alice: User, bob: User) -> None:
    """Having been invited is not having been there (lesson S20)."""
    room_id = await alice.create(name="Secret")
    await alice.invite(room_id, bob)
    (invited,) = (await bob.get("/initialSync"))["rooms"]
    assert (invited["membership"], invited["inviter"]) == ("invite", alice.user_id)
    assert invited["invite"]["content"]["membership"] == "invite"
    assert "state" not in invited
    refused(await bob.call("GET", f"/rooms/{room_id}/initialSync"), 403, "M_FORBIDDEN")
    await bob.leave(room_id)
    assert (await bob.get("/initialSync", archived="true"))["rooms"] == []


async def test_the_snapshot_of_all_rooms(server: ReadingServer, alice: User, bob: User) -> None:
    first, second = await alice.create(preset="public_chat"), await alice.create()
    await bob.join(first)
    event_id = await alice.send(first, "hello")
    await alice.post(f"/rooms/{first}/receipt/m.read/{event_id}")
    await alice.put(f"/user/{alice.user_id}/account_data/org.example.mine", {"a": 1})
    ignored = await server.user("ignored")
    hidden = await ignored.create()
    await alice.ignore(ignored)
    await ignored.invite(hidden, alice)
    snapshot = await alice.get("/initialSync", limit=1)
    rooms = {room["room_id"]: room for room in snapshot["rooms"]}
    assert set(rooms) == {first, second}
    assert event_ids(rooms[first]["messages"]["chunk"]) == [event_id]
    assert [data["content"] for data in snapshot["account_data"] if data["type"] == "org.example.mine"] == [{"a": 1}]
    assert event_id in snapshot["receipts"][0]["content"]
    await alice.send(second, "news")
    page = await alice.get("/events", timeout=0, **{"from": snapshot["end"]})
    assert bodies([event for event in page["chunk"] if event["type"] == "m.room.message"]) == ["news"]


async def test_the_number_of_statements_does_not_grow_with_the_rooms(server: ReadingServer, alice: User) -> None:
    await alice.create()
    few = await server.statements_of(alice, "/initialSync")
    for _ in range(5):
        await alice.create()
    many = await server.statements_of(alice, "/initialSync")
    assert many.statements <= few.statements + 1
