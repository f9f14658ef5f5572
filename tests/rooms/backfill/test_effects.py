"""What fetched events do to others: redactions, relations, threads.

https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions
"""

from typing import Any

import pytest

from homeserver.core.pdu import Pdu
from storage.database import Database
from tests.federation.peer_room import PeerRoom
from tests.rooms.backfill.conftest import Serve
from tests.rooms.backfill.past_room import (
    DORA,
    EMIL,
    RESIDENT,
    bodies,
    enter,
    ids,
    past_room,
    push,
    read_back,
    stored_events,
    talk,
)
from tests.rooms.remote_membership.resident import refused

VERSIONS = ("1", "6", "11", "12")


def redact(room: PeerRoom, target: Pdu, *, sender: Any = DORA, **place: Any) -> Pdu:
    """A redaction, in the form of the room's version."""
    if room.version.redacts_in_content:
        return room.send(sender, "m.room.redaction", {"redacts": target.event_id}, **place)
    return room.send(sender, "m.room.redaction", {}, redacts=target.event_id, **place)


def relate(room: PeerRoom, body: str, rel_type: str, target: Pdu, **content: Any) -> Pdu:
    """A message that relates to another event."""
    relation = {"rel_type": rel_type, "event_id": target.event_id}
    return room.send(EMIL, "m.room.message", {"body": body, "m.relates_to": relation, **content})


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("distance", [1, 70])
async def test_redactions_of_the_past(serve: Serve, db: Database, version: str, distance: int) -> None:
    """Whether both come together or the redaction long before: at last the target is redacted, and both are there."""
    resident = past_room(version)
    room = resident.room
    target, named = room.say(EMIL, "secret"), room.send(DORA, "m.room.topic", {"topic": "secret"}, state_key="")
    created = room.current("m.room.create")
    assert created is not None
    renamed = room.send(DORA, "m.room.topic", {"topic": "public"}, state_key="")
    talk(room, distance)
    redactions = [redact(room, target), redact(room, named)]
    vain = redact(room, created)
    # In version 1 a redaction that the rules allow is an event like any other.
    hidden = set() if version == "1" else {vain.event_id}
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room.room_id)
        await read_back(alice, room.room_id, limit=20)
        shown = {event["event_id"]: event for event in await read_back(alice, room.room_id)}
        assert shown.keys() ^ {*ids(resident.history), resident.sent[0].event_id} == hidden
        for pdu, redaction in ((target, redactions[0]), (named, redactions[1])):
            assert shown[pdu.event_id]["content"] == {}
            assert shown[pdu.event_id]["unsigned"]["redacted_because"]["event_id"] == redaction.event_id
        assert "redacted_because" not in shown[created.event_id]["unsigned"]
        assert shown[renamed.event_id]["unsigned"]["prev_content"] == {}
        assert "secret" not in str(shown)
    stored = await stored_events(db)
    assert stored[vain.event_id].soft_failed == bool(hidden)
    assert not any(stored[pdu.event_id].soft_failed for pdu in redactions)
    async with db.connection() as conn:
        assert not await conn.fetchval("SELECT count(*) FROM pending_redactions")


async def test_nothing_repeats_what_was_redacted(serve: Serve, db: Database) -> None:
    """The redacted event is only known as a part of the state, when what replaced it comes with its redaction."""
    resident = past_room()
    room = resident.room
    named = room.send(DORA, "m.room.topic", {"topic": "secret"}, state_key="")
    talk(room, 70)
    renamed = room.send(DORA, "m.room.topic", {"topic": "public"}, state_key="")
    redact(room, named)
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room.room_id)
        page = await alice.get(f"/rooms/{room.room_id}/messages", dir="b", limit=10)
        assert named.event_id not in ids(page["chunk"])
        (shown,) = [event for event in page["chunk"] if event["event_id"] == renamed.event_id]
        assert shown["unsigned"]["prev_content"] == {}
        assert "secret" not in str(await read_back(alice, room.room_id))


async def test_a_redaction_that_came_before_its_target(serve: Serve, db: Database) -> None:
    """It was said when this server was there, of something from before."""
    resident = past_room()
    room = resident.room
    target = room.say(EMIL, "secret")
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room.room_id)
        await push(site, redact(room, target))
        shown = await read_back(alice, room.room_id)
        assert target.event_id in ids(shown)
        assert bodies(shown) == []


async def test_a_redaction_in_a_gap(serve: Serve, db: Database) -> None:
    """What is known from before the gap is redacted when the gap is filled, also if it is current state."""
    resident = past_room()
    room = resident.room
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room.room_id)
        said, named = room.say(EMIL, "secret"), room.send(DORA, "m.room.topic", {"topic": "secret"}, state_key="")
        await push(site, said, named)
        redact(room, said)
        redact(room, named)
        talk(room, 5)
        resident.refusals[(RESIDENT, "get_missing_events")] = refused("M_FORBIDDEN")
        await push(site, room.say(EMIL, "there again"))
        path = f"/rooms/{room.room_id}"
        assert (await alice.get(f"{path}/state/m.room.topic")) == {"topic": "secret"}
        shown = {event["event_id"]: event for event in await read_back(alice, room.room_id)}
        assert shown.keys() >= set(ids(resident.history))
        assert shown[said.event_id]["content"] == shown[named.event_id]["content"] == {}
        assert (await alice.get(f"{path}/state/m.room.topic")) == {}
        async with db.connection() as conn:
            assert await conn.fetchval("SELECT topic FROM room_summaries") is None
        await alice.put(f"{path}/send/m.room.message/1", {"body": "on we go"})


@pytest.mark.parametrize("distance", [1, 70])
async def test_relations_of_the_past(serve: Serve, db: Database, distance: int) -> None:
    """Aggregations show them, and threads have their members."""
    resident = past_room()
    room = resident.room
    root, edited = room.say(EMIL, "root"), room.say(EMIL, "mistake")
    reply = relate(room, "reply", "m.thread", root)
    talk(room, distance)
    new = {"body": "right", "msgtype": "m.text"}
    edit = relate(room, "* right", "m.replace", edited, **{"m.new_content": new})
    reaction = room.send(
        DORA,
        "m.reaction",
        {"m.relates_to": {"rel_type": "m.annotation", "event_id": reply.event_id, "key": "+"}},
    )
    late = relate(room, "late reply", "m.thread", root)
    async with serve(resident) as site:
        alice = await site.register("alice")
        await enter(alice, room.room_id)
        await read_back(alice, room.room_id, limit=20)
        shown = {event["event_id"]: event for event in await read_back(alice, room.room_id)}
        thread = shown[root.event_id]["unsigned"]["m.relations"]["m.thread"]
        assert (thread["count"], thread["latest_event"]["event_id"]) == (2, late.event_id)
        assert shown[edited.event_id]["unsigned"]["m.relations"]["m.replace"]["event_id"] == edit.event_id
        path = f"/_matrix/client/v1/rooms/{room.room_id}"
        assert ids((await alice.get(f"{path}/relations/{root.event_id}"))["chunk"]) == [late.event_id, reply.event_id]
        assert ids((await alice.get(f"{path}/relations/{reply.event_id}"))["chunk"]) == [reaction.event_id]
        assert ids((await alice.get(f"{path}/threads"))["chunk"]) == [root.event_id]
    stored = await stored_events(db)
    assert {stored[pdu.event_id].thread_root for pdu in (reply, late, reaction)} == {root.event_id}
    assert stored[root.event_id].thread_root is None
