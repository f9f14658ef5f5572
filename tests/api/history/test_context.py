"""GET /rooms/{roomId}/context, /event, /timestamp_to_event, and /events/{eventId}."""

from urllib.parse import quote

import orjson
import pytest

from tests.api.history.api import ReadingServer, User, bodies, event_ids, refused

LAZY = orjson.dumps({"lazy_load_members": True}).decode()


async def _conversation(user: User, room_id: str, count: int = 5) -> list[str]:
    return [await user.send(room_id, f"message {number}") for number in range(count)]


async def test_the_limit_is_split(alice: User) -> None:
    room_id = await alice.create()
    sent = await _conversation(alice, room_id, 7)
    context = await alice.get(f"/rooms/{room_id}/context/{sent[3]}", limit=4)
    assert context["event"]["event_id"] == sent[3]
    assert event_ids(context["events_before"]) == [sent[2], sent[1]]
    assert event_ids(context["events_after"]) == [sent[4], sent[5]]
    earlier = await alice.messages(room_id, limit=1, **{"from": context["start"]})
    assert event_ids(earlier["chunk"]) == [sent[0]]
    later = await alice.messages(room_id, dir="f", **{"from": context["end"]})
    assert event_ids(later["chunk"]) == [sent[6]]


async def test_a_limit_of_nothing_gives_the_event_alone(alice: User) -> None:
    room_id = await alice.create()
    sent = await _conversation(alice, room_id)
    context = await alice.get(f"/rooms/{room_id}/context/{sent[2]}", limit=0)
    assert (context["events_before"], context["events_after"]) == ([], [])
    assert context["event"]["event_id"] == sent[2]
    assert event_ids((await alice.messages(room_id, limit=1, **{"from": context["start"]}))["chunk"]) == [sent[1]]


async def test_the_state_is_that_at_the_last_event(alice: User) -> None:
    room_id = await alice.create(name="First")
    first = await alice.send(room_id)
    await alice.set_state(room_id, "m.room.name", {"name": "Second"})
    await alice.set_state(room_id, "m.room.name", {"name": "Third"})

    async def name(limit: int) -> str:
        context = await alice.get(f"/rooms/{room_id}/context/{first}", limit=limit)
        names = [event["content"]["name"] for event in context["state"] if event["type"] == "m.room.name"]
        assert len(names) == 1
        return str(names[0])

    assert [await name(0), await name(1), await name(4)] == ["First", "Second", "Third"]


async def test_members_are_loaded_lazily_and_the_filter_applies_to_state_too(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat", name="A name")
    await bob.join(room_id)
    sent = await alice.send(room_id)
    path = f"/rooms/{room_id}/context/{sent}"
    lazy = (await alice.get(path, limit=0, filter=LAZY))["state"]
    assert [event["state_key"] for event in lazy if event["type"] == "m.room.member"] == [alice.user_id]
    assert "m.room.create" in {event["type"] for event in lazy}
    whole = (await alice.get(path, limit=0))["state"]
    assert {event["state_key"] for event in whole if event["type"] == "m.room.member"} == {alice.user_id, bob.user_id}
    wanted = orjson.dumps({"types": ["m.room.name"]}).decode()
    named = await alice.get(path, filter=wanted)
    assert [event["type"] for event in named["state"]] == ["m.room.name"]
    assert named["event"]["event_id"] == sent
    assert [event["type"] for event in named["events_before"]] == ["m.room.name"]


async def test_context_is_for_those_who_may_read_the_room(alice: User, bob: User) -> None:
    room_id = await alice.create()
    sent = await alice.send(room_id)
    refused(await bob.call("GET", f"/rooms/{room_id}/context/{sent}"), 403, "M_FORBIDDEN")
    refused(await alice.call("GET", f"/rooms/{room_id}/context/$absent"), 404, "M_NOT_FOUND")
    refused(await alice.call("GET", f"/rooms/{room_id}/context/nonsense"), 400, "M_INVALID_PARAM")
    refused(await alice.call("GET", f"/rooms/{room_id}/context/{sent}", limit="x"), 400, "M_INVALID_PARAM")
    refused(await alice.call("GET", f"/rooms/{room_id}/context/{sent}", filter="}"), 400, "M_NOT_JSON")


async def test_s19_an_event_of_another_room_is_not_here(alice: User, bob: User) -> None:
    """An event is asked for under its own room only, and what is hidden and what is absent look alike (lesson S19)."""
    hidden, public = await alice.create(), await alice.create(preset="public_chat")
    secret = await alice.send(hidden)
    await bob.join(public)
    for path in ("event", "context"):
        absent = await bob.call("GET", f"/rooms/{public}/{path}/$absent")
        other = await bob.call("GET", f"/rooms/{public}/{path}/{quote(secret)}")
        refused(other, 404, "M_NOT_FOUND")
        assert other.body == absent.body
    assert (await bob.call("GET", f"/rooms/{hidden}/event/{quote(secret)}")).body == (
        await bob.call("GET", f"/rooms/!absent:example.org/event/{quote(secret)}")
    ).body
    refused(await bob.call("GET", f"/rooms/{hidden}/event/{quote(secret)}"), 404, "M_NOT_FOUND")
    refused(await bob.call("GET", f"/events/{quote(secret)}"), 404, "M_NOT_FOUND")
    assert (await alice.get(f"/events/{secret}"))["event_id"] == secret


async def test_s20_context_and_single_events_obey_the_history_visibility(alice: User, bob: User) -> None:
    """The visibility of history holds for events, contexts and dates alike (lesson S20)."""
    state = [{"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}]
    room_id = await alice.create(preset="public_chat", initial_state=state)
    before = await alice.send(room_id, "before")
    await bob.join(room_id)
    joined = await alice.send(room_id, "joined")
    await bob.leave(room_id)
    behind = await alice.send(room_id, "behind")
    assert (await bob.get(f"/rooms/{room_id}/event/{joined}"))["content"]["body"] == "joined"
    context = await bob.get(f"/rooms/{room_id}/context/{joined}", limit=50)
    assert bodies([*context["events_before"], *context["events_after"]]) == []
    assert context["events_after"][-1]["content"]["membership"] == "leave"
    for event_id in (before, behind):
        refused(await bob.call("GET", f"/rooms/{room_id}/event/{event_id}"), 404, "M_NOT_FOUND")
        refused(await bob.call("GET", f"/rooms/{room_id}/context/{event_id}"), 404, "M_NOT_FOUND")


async def test_rejected_and_soft_failed_events_are_shown_to_nobody(server: ReadingServer, alice: User) -> None:
    room_id = await alice.create()
    sent = await alice.send(room_id)
    async with server.db.connection() as conn:
        await conn.execute(
            "UPDATE events SET soft_failed = true, topological = NULL, position = NULL WHERE event_id = $1", sent
        )
    refused(await alice.call("GET", f"/rooms/{room_id}/event/{sent}"), 404, "M_NOT_FOUND")
    refused(await alice.call("GET", f"/rooms/{room_id}/context/{sent}"), 404, "M_NOT_FOUND")
    assert sent not in event_ids((await alice.messages(room_id, limit=50))["chunk"])


async def test_messages_of_ignored_users_are_left_out_of_contexts(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    noise = await bob.send(room_id, "noise")
    signal = await alice.send(room_id, "signal")
    await alice.ignore(bob)
    context = await alice.get(f"/rooms/{room_id}/context/{signal}", limit=2)
    assert noise not in event_ids(context["events_before"])


async def test_the_event_closest_to_a_time(alice: User) -> None:
    room_id = await alice.create()
    sent = await _conversation(alice, room_id, 3)
    times = [(await alice.get(f"/rooms/{room_id}/event/{event_id}"))["origin_server_ts"] for event_id in sent]
    path = f"/_matrix/client/v1/rooms/{room_id}/timestamp_to_event"

    async def closest(ts: int, direction: str) -> tuple[str, int]:
        found = await alice.get(path, ts=ts, dir=direction)
        return found["event_id"], found["origin_server_ts"]

    assert await closest(times[1], "f") == (sent[1], times[1])
    assert await closest(times[1], "b") == (sent[1], times[1])
    assert await closest(times[2] + 1000, "b") == (sent[2], times[2])
    assert (await closest(0, "f"))[1] < times[0]
    refused(await alice.call("GET", path, ts=times[2] + 1000, dir="f"), 404, "M_NOT_FOUND")
    refused(await alice.call("GET", path, ts=0, dir="b"), 404, "M_NOT_FOUND")


async def test_s19_dates_are_for_those_who_may_read_the_room(alice: User, bob: User) -> None:
    """Jumping to a date checks who asks, and passes over what is hidden (lesson S19)."""
    state = [{"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}]
    room_id = await alice.create(preset="public_chat", initial_state=state)
    hidden = (await _conversation(alice, room_id))[0]
    since = (await alice.get(f"/rooms/{room_id}/event/{hidden}"))["origin_server_ts"]
    path = f"/_matrix/client/v1/rooms/{room_id}/timestamp_to_event"
    assert (await alice.get(path, ts=since, dir="f"))["event_id"] == hidden
    refused(await bob.call("GET", path, ts=0, dir="f"), 403, "M_FORBIDDEN")
    await bob.join(room_id)
    found = await bob.get(path, ts=since, dir="f")
    first = await bob.get(f"/rooms/{room_id}/event/{found['event_id']}")
    assert (first["type"], first["state_key"]) == ("m.room.member", bob.user_id)


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ({"dir": "f"}, "M_MISSING_PARAM"),
        ({"ts": "0"}, "M_MISSING_PARAM"),
        ({"ts": "x", "dir": "f"}, "M_INVALID_PARAM"),
        ({"ts": str(2**53), "dir": "f"}, "M_INVALID_PARAM"),
        ({"ts": "-1", "dir": "f"}, "M_INVALID_PARAM"),
        ({"ts": "0", "dir": "up"}, "M_INVALID_PARAM"),
    ],
)
async def test_wrong_dates(alice: User, query: dict[str, str], errcode: str) -> None:
    room_id = await alice.create()
    path = f"/_matrix/client/v1/rooms/{room_id}/timestamp_to_event"
    refused(await alice.call("GET", path, **query), 400, errcode)


async def test_jumping_beyond_all_time(alice: User) -> None:
    room_id = await alice.create()
    path = f"/_matrix/client/v1/rooms/{room_id}/timestamp_to_event"
    assert (await alice.get(path, ts=2**53 - 1, dir="b"))["event_id"]
