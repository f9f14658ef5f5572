"""Who may see which events."""

import pytest

from homeserver.core.errors import Forbidden
from homeserver.core.ids import RoomId, UserId
from homeserver.services.rooms.access import RoomAccess
from homeserver.services.rooms.drafts import Draft
from storage.database import Database
from storage.memberships import forget_room
from storage.rooms import get_room
from storage.state import StateStore
from storage.users import insert_user
from tests.rooms.consistency import all_events
from tests.rooms.workers import ALICE, BOB, Worker, member, message

CAROL = UserId("@carol:example.org")


def _visibility(value: str) -> Draft:
    content = {"history_visibility": value}
    return Draft(type="m.room.history_visibility", sender=ALICE, state_key="", content=content)


async def _seen(db: Database, room_id: RoomId, user_id: UserId) -> list[str]:
    """The messages that a user sees."""
    access = RoomAccess(states=StateStore())
    events = [event for event in await all_events(db, room_id) if event.type == "m.room.message"]
    async with db.connection() as conn:
        return [event.content.get("body", "-") for event in await access.filter_visible(conn, user_id, events)]


async def _story(worker: Worker, visibility: str) -> RoomId:
    """Bob is invited, joins, leaves and comes back; Alice says something at each point."""
    room_id = await worker.create_room(_visibility(visibility))
    for body, change in (
        ("before", member(BOB, "invite", sender=ALICE)),
        ("invited", member(BOB, "join")),
        ("in", member(BOB, "leave")),
        ("away", member(BOB, "join")),
        ("back", member(BOB, "leave")),
    ):
        await worker.add(room_id, message(body), change)
    await worker.add(room_id, message("after"))
    return room_id


@pytest.mark.parametrize(
    ("visibility", "seen"),
    [
        ("joined", ["in", "back"]),
        ("invited", ["invited", "in", "back"]),
        ("shared", ["before", "invited", "in", "away", "back"]),
        ("world_readable", ["before", "invited", "in", "away", "back", "after"]),
    ],
)
async def test_history_visibility(worker: Worker, visibility: str, seen: list[str]) -> None:
    room_id = await _story(worker, visibility)
    assert await _seen(worker.db, room_id, BOB) == seen
    assert await _seen(worker.db, room_id, CAROL) == (seen if visibility == "world_readable" else [])
    assert await _seen(worker.db, room_id, ALICE) == ["before", "invited", "in", "away", "back", "after"]


async def test_each_event_is_judged_by_the_visibility_at_that_time(worker: Worker) -> None:
    room_id = await worker.create_room(_visibility("joined"))
    await worker.add(room_id, message("closed"), _visibility("world_readable"))
    await worker.add(room_id, message("open"), _visibility("joined"))
    await worker.add(room_id, message("closed again"))
    assert await _seen(worker.db, room_id, BOB) == ["open"]
    await worker.add(room_id, member(BOB, "join"), message("hello"))
    assert await _seen(worker.db, room_id, BOB) == ["open", "hello"]


async def test_memberships_at_events(worker: Worker) -> None:
    room_id = await _story(worker, "world_readable")
    access, events = RoomAccess(states=StateStore()), await all_events(worker.db, room_id)
    async with worker.db.connection() as conn:
        visible = await access.visible(conn, BOB, events)
    told = {event.content["body"]: visible.memberships[event.event_id] for event in events if event.state_key is None}
    assert told == {
        "before": "leave", "invited": "invite", "in": "join", "away": "leave", "back": "join", "after": "leave"
    }  # fmt: skip
    own = [visible.memberships[event.event_id] for event in events if event.state_key == BOB]
    assert own == ["invite", "join", "leave", "join", "leave"]


async def test_gates(worker: Worker) -> None:
    room_id = await worker.create_room(_visibility("shared"))
    access = RoomAccess(states=StateStore())
    await worker.add(room_id, member(CAROL, "invite", sender=ALICE))
    async with worker.db.connection() as conn:
        for user_id in (BOB, CAROL):
            with pytest.raises(Forbidden):
                await access.require_joined(conn, user_id, room_id)
            with pytest.raises(Forbidden):
                await access.require_readable(conn, user_id, room_id)
        with pytest.raises(Forbidden):
            await access.require_readable(conn, ALICE, RoomId("!nowhere:example.org"))
        assert (await access.require_joined(conn, ALICE, room_id)).membership == "join"
        assert (await access.require_readable(conn, ALICE, room_id)).departure is None
    await worker.add(room_id, member(BOB, "join"))
    left = await worker.add(room_id, member(BOB, "leave"))
    await worker.add(room_id, member(BOB, "ban", sender=ALICE))
    async with worker.db.connection() as conn:
        readable = await access.require_readable(conn, BOB, room_id)
        assert readable.departure is not None
        assert readable.departure.event_nid == left.event_nids[0]
        room = await get_room(conn, room_id)
        await forget_room(conn, room_nid=room.room_nid, user_id=BOB)
        with pytest.raises(Forbidden):
            await access.require_readable(conn, BOB, room_id)
    assert await _seen(worker.db, room_id, BOB) == []


async def test_messages_of_erased_users_are_shown_only_to_those_who_were_there(worker: Worker) -> None:
    async with worker.db.connection() as conn:
        await insert_user(conn, BOB, password_hash=None, created_ts=0)
    room_id = await worker.create_room(_visibility("shared"))
    await worker.add(room_id, member(BOB, "join"))
    await worker.add(room_id, message("bye", sender=BOB), member(BOB, "leave"))
    await worker.add(room_id, member(CAROL, "join"))
    assert await _seen(worker.db, room_id, CAROL) == ["bye"]
    async with worker.db.connection() as conn:
        await conn.execute("UPDATE users SET erased = true WHERE user_id = $1", BOB)
    assert await _seen(worker.db, room_id, CAROL) == ["-"]
    assert await _seen(worker.db, room_id, ALICE) == ["bye"]
