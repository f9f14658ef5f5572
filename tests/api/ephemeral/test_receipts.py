"""Receipts and read markers: who may put them where, who is told, and that they only go forwards."""

import asyncio
from typing import Any

import pytest

from homeserver.core.ids import RoomId, ServerName
from tests.api.ephemeral.api import EphemeralApi, Person

REMOTE = "remote.test"


def is_error(reply: Any, status: int, errcode: str) -> bool:
    return (reply.status, reply.json["errcode"]) == (status, errcode)


async def test_a_receipt_reaches_the_room(api: EphemeralApi, alice: Person, bob: Person) -> None:
    room = await api.room(alice, bob)
    event = await alice.rooms.send(room)
    listener = await alice.listener().caught_up()
    reply = await bob.read(room, event)
    assert (reply.status, reply.json) == (200, {})
    news = await listener.expect(lambda news: bool(news.receipts))
    assert news.receipts == {(bob.user_id, "m.read", None, event)}


async def test_a_private_receipt_reaches_its_user_only(api: EphemeralApi, alice: Person, bob: Person) -> None:
    room = await api.room(alice, bob)
    first, second = await alice.rooms.send(room), await alice.rooms.send(room)
    alice_hears, bob_hears = await alice.listener().caught_up(), await bob.listener().caught_up()
    assert (await bob.read(room, first, receipt_type="m.read.private")).status == 200
    assert (await bob_hears.expect(bool)).receipts == {(bob.user_id, "m.read.private", None, first)}
    assert (await bob.read(room, second)).status == 200
    assert (await alice_hears.expect(bool)).receipts == {(bob.user_id, "m.read", None, second)}
    assert {receipt[1] for receipt in (await alice.listener().read()).receipts} == {"m.read"}


async def test_a_receipt_only_goes_forwards(api: EphemeralApi, alice: Person, bob: Person) -> None:
    room = await api.room(alice, bob)
    first, second, third = [await alice.rooms.send(room) for _ in range(3)]
    assert (await bob.read(room, second)).status == 200
    listener = await alice.listener().caught_up()
    assert (await bob.read(room, first)).status == 200
    assert (await bob.read(room, second)).status == 200
    assert not await listener.read(), "neither back nor to the same place is news"
    assert (await bob.read(room, third)).status == 200
    assert (await listener.read()).receipts == {(bob.user_id, "m.read", None, third)}


async def thread(room: RoomId, person: Person) -> tuple[str, str, str, str]:
    """A root, an event of its thread, a reaction to that event, and another message."""
    root = await person.rooms.send(room, "root")
    inside = await person.rooms.send_event(
        room, "m.room.message", {"body": "inside", "m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    )
    reaction = await person.rooms.send_event(
        room,
        "m.reaction",
        {"m.relates_to": {"rel_type": "m.annotation", "event_id": inside.json["event_id"], "key": "+"}},
    )
    return root, inside.json["event_id"], reaction.json["event_id"], await person.rooms.send(room, "beside")


async def test_receipts_of_threads_stand_beside_each_other(api: EphemeralApi, alice: Person, bob: Person) -> None:
    room = await api.room(alice, bob)
    root, inside, reaction, beside = await thread(room, alice)
    assert (await bob.read(room, beside, thread_id="main")).status == 200
    assert (await bob.read(room, inside, thread_id=root)).status == 200
    assert (await bob.read(room, root)).status == 200
    expected = {
        (bob.user_id, "m.read", "main", beside),
        (bob.user_id, "m.read", root, inside),
        (bob.user_id, "m.read", None, root),
    }
    assert (await alice.listener().read()).receipts == expected
    assert (await bob.read(room, reaction, thread_id=root)).status == 200
    assert (await bob.read(room, root, thread_id="main")).status == 200
    moved = expected - {(bob.user_id, "m.read", root, inside)} | {(bob.user_id, "m.read", root, reaction)}
    assert (await alice.listener().read()).receipts == moved


async def test_a_receipt_belongs_to_the_thread_of_its_event(api: EphemeralApi, alice: Person) -> None:
    room = await api.room(alice)
    root, inside, reaction, beside = await thread(room, alice)
    for event, thread_id in ((inside, "main"), (reaction, "main"), (beside, root), (inside, beside)):
        assert is_error(await alice.read(room, event, thread_id=thread_id), 400, "M_INVALID_PARAM"), (event, thread_id)
    assert (await alice.listener().read()).receipts == set()


@pytest.mark.parametrize("thread_id", ["", 5, None, [], "thread", "$" + "x" * 300, "$a\x00b"])
async def test_a_wrong_thread_id_is_refused(api: EphemeralApi, alice: Person, thread_id: Any) -> None:
    room = await api.room(alice)
    event = await alice.rooms.send(room)
    assert is_error(await alice.read(room, event, thread_id=thread_id), 400, "M_INVALID_PARAM")


async def test_a_wrong_type_is_refused(api: EphemeralApi, alice: Person) -> None:
    room = await api.room(alice)
    event = await alice.rooms.send(room)
    assert is_error(await alice.read(room, event, receipt_type="m.seen"), 400, "M_INVALID_PARAM")
    reply = await alice.read(room, event, receipt_type="m.fully_read", thread_id="main")
    assert is_error(reply, 400, "M_INVALID_PARAM")


@pytest.mark.parametrize("event_id", ["$unknown", "nothing", "$" + "x" * 300, "$%00", "$%ED%A0%80"])
async def test_an_event_that_is_none_is_refused(api: EphemeralApi, alice: Person, event_id: str) -> None:
    room = await api.room(alice)
    reply = await alice.call("POST", f"/rooms/{room}/receipt/m.read/{event_id}", {})
    assert reply.status in (400, 404)
    assert (await alice.listener().read()).receipts == set()


async def test_an_event_of_another_room_is_unknown(api: EphemeralApi, alice: Person) -> None:
    room, other = await api.room(alice), await api.room(alice)
    event = await alice.rooms.send(other)
    assert is_error(await alice.read(room, event), 404, "M_NOT_FOUND")
    assert is_error(await alice.mark(room, fully_read=event), 404, "M_NOT_FOUND")


async def test_only_those_in_the_room_read_it(api: EphemeralApi, alice: Person, bob: Person) -> None:
    room = await api.room(alice)
    event = await alice.rooms.send(room)
    assert is_error(await bob.read(room, event), 403, "M_FORBIDDEN")
    assert is_error(await bob.mark(room, fully_read=event), 403, "M_FORBIDDEN")
    assert is_error(await bob.read("!unknown:example.org", event), 403, "M_FORBIDDEN")
    await bob.rooms.join(room)
    await bob.rooms.post(room, "leave")
    assert is_error(await bob.read(room, event), 403, "M_FORBIDDEN")
    assert (await alice.listener().read()).receipts == set()


async def test_markers_move_together(api: EphemeralApi, alice: Person, bob: Person) -> None:
    room = await api.room(alice, bob)
    first, second, third = [await alice.rooms.send(room) for _ in range(3)]
    listener = await bob.listener().caught_up()
    assert (await bob.mark(room, fully_read=first, read=second, read_private=third)).status == 200
    news = await listener.expect(bool)
    assert news.fully_read == {room: first}
    assert news.receipts == {(bob.user_id, "m.read", None, second), (bob.user_id, "m.read.private", None, third)}


async def test_the_fully_read_marker_is_its_users_own_and_only_goes_forwards(
    api: EphemeralApi, alice: Person, bob: Person
) -> None:
    room = await api.room(alice, bob)
    first, second = [await alice.rooms.send(room) for _ in range(2)]
    alice_hears, bob_hears = await alice.listener().caught_up(), await bob.listener().caught_up()
    assert (await bob.read(room, second, receipt_type="m.fully_read")).status == 200
    assert (await bob_hears.expect(bool)).fully_read == {room: second}
    assert (await bob.mark(room, fully_read=first)).status == 200
    assert (await bob.mark(room, fully_read=second)).status == 200
    assert not await bob_hears.read()
    assert not await alice_hears.read()


async def test_no_markers_is_nothing(api: EphemeralApi, alice: Person) -> None:
    room = await api.room(alice)
    assert (await alice.mark(room)).status == 200
    assert not await alice.listener().read()


async def test_if_one_marker_is_wrong_none_moves(api: EphemeralApi, alice: Person) -> None:
    room = await api.room(alice)
    event = await alice.rooms.send(room)
    assert is_error(await alice.mark(room, read=event, fully_read="$unknown"), 404, "M_NOT_FOUND")
    assert is_error(await alice.mark(room, read=event, fully_read="unknown"), 400, "M_INVALID_PARAM")
    assert (await alice.call("POST", f"/rooms/{room}/read_markers", {"m.read": 5})).status == 400
    assert not await alice.listener().read()


async def test_receipts_at_once_end_at_the_furthest(api: EphemeralApi, alice: Person, bob: Person) -> None:
    room = await api.room(alice, bob)
    events = [await alice.rooms.send(room) for _ in range(6)]
    async with asyncio.TaskGroup() as tasks:
        for event in (3, 5, 1, 0, 4, 2):
            tasks.create_task(bob.read(room, events[event]))
    assert (await alice.listener().read()).receipts == {(bob.user_id, "m.read", None, events[5])}


def edu(room: str, user_id: str, *event_ids: str, ts: int = 1000, thread_id: str | None = None) -> dict[str, Any]:
    data = {"ts": ts} if thread_id is None else {"ts": ts, "thread_id": thread_id}
    return {room: {"m.read": {user_id: {"data": data, "event_ids": list(event_ids)}}}}


async def test_receipts_of_other_servers(api: EphemeralApi, alice: Person) -> None:
    room = await api.room(alice)
    first, second = await alice.rooms.send(room), await alice.rooms.send(room)
    remote = "@remote:remote.test"
    await api.remote_member(room, remote)
    listener = await alice.listener().caught_up()
    await api.receipts.receive(ServerName(REMOTE), edu(room, remote, first))
    assert (await listener.expect(bool)).receipts == {(remote, "m.read", None, first)}
    await api.receipts.receive(ServerName(REMOTE), edu(room, remote, "$not_here_yet", ts=2000))
    assert (await listener.expect(bool)).receipts == {(remote, "m.read", None, "$not_here_yet")}
    await api.receipts.receive(ServerName(REMOTE), edu(room, remote, "$an_older_one", ts=1500))
    assert not await listener.read()
    await api.receipts.receive(ServerName(REMOTE), edu(room, remote, second, first, ts=1700))
    assert (await listener.expect(bool)).receipts == {(remote, "m.read", None, second)}


async def test_another_server_speaks_only_for_its_users_in_the_room(
    api: EphemeralApi, alice: Person, bob: Person
) -> None:
    room = await api.room(alice)
    other = await api.room(alice)
    event, foreign = await alice.rooms.send(room), await alice.rooms.send(other)
    await api.remote_member(room, "@member:remote.test")
    listener = await alice.listener().caught_up()
    origin = ServerName(REMOTE)
    await api.receipts.receive(origin, edu(room, "@stranger:remote.test", event))
    await api.receipts.receive(origin, edu(room, alice.user_id, event))
    await api.receipts.receive(origin, edu("!unknown:x", "@member:remote.test", event))
    await api.receipts.receive(origin, edu(room, "@member:remote.test", foreign))
    await api.receipts.receive(ServerName("third.test"), edu(room, "@member:remote.test", event))
    assert not await listener.read()
