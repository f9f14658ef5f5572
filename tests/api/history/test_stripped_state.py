"""The stripped state of rooms that somebody is invited to or knocks at."""

from collections.abc import Sequence
from typing import Any

from homeserver.core.ids import RoomId
from storage.database import measure_database
from storage.memberships import find_membership
from tests.api.history.api import ReadingServer, User


async def _stripped(server: ReadingServer, user: User, *room_ids: RoomId) -> dict[str, Sequence[dict[str, Any]]]:
    """What the user is told of rooms, by the ids of the rooms."""
    async with server.db.connection() as conn:
        rows = [await find_membership(conn, room_id=room_id, user_id=user.user_id) for room_id in room_ids]
        nids = {row.room_nid: row.event_nid for row in rows if row is not None}
        told = await server.rooms.stripped_state.of_rooms(conn, user.user_id, nids)
    return {row.room_id: told[row.room_nid] for row in rows if row is not None}


async def test_an_invitation_tells_what_the_room_is_and_who_invites(
    server: ReadingServer, alice: User, bob: User
) -> None:
    encryption = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    avatar = {"type": "m.room.avatar", "state_key": "", "content": {"url": "mxc://example.org/pub"}}
    other = {"type": "org.example.secret", "state_key": "", "content": {"a": 1}}
    room_id = await alice.create(
        name="The Pub", topic="Beer", room_alias_name="pub", initial_state=[encryption, avatar, other]
    )
    await alice.invite(room_id, bob)
    told = (await _stripped(server, bob, room_id))[room_id]
    assert all(event.keys() == {"type", "state_key", "sender", "content"} for event in told)
    by_slot = {(event["type"], event["state_key"]): event["content"] for event in told}
    assert by_slot.keys() == {
        ("m.room.create", ""),
        ("m.room.name", ""),
        ("m.room.topic", ""),
        ("m.room.avatar", ""),
        ("m.room.join_rules", ""),
        ("m.room.canonical_alias", ""),
        ("m.room.encryption", ""),
        ("m.room.member", alice.user_id),
        ("m.room.member", bob.user_id),
    }
    assert by_slot[("m.room.name", "")] == {"name": "The Pub"}
    assert by_slot[("m.room.member", bob.user_id)]["membership"] == "invite"
    assert told[-1]["state_key"] == bob.user_id


async def test_it_is_the_state_of_that_moment(server: ReadingServer, alice: User, bob: User) -> None:
    room_id = await alice.create(name="Before")
    await alice.invite(room_id, bob)
    await alice.set_state(room_id, "m.room.name", {"name": "Behind"})
    await alice.set_state(room_id, "m.room.topic", {"topic": "Behind"})
    told = {event["type"]: event["content"] for event in (await _stripped(server, bob, room_id))[room_id]}
    assert told["m.room.name"] == {"name": "Before"}
    assert "m.room.topic" not in told


async def test_a_knock_tells_of_the_room_and_of_oneself(server: ReadingServer, alice: User, bob: User) -> None:
    state = [{"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}]
    room_id = await alice.create(initial_state=state)
    await bob.post(f"/knock/{room_id}")
    told = (await _stripped(server, bob, room_id))[room_id]
    assert [event["type"] for event in told] == ["m.room.create", "m.room.join_rules", "m.room.member"]
    assert (told[-1]["state_key"], told[-1]["content"]["membership"]) == (bob.user_id, "knock")


async def test_many_rooms_take_no_more_statements_than_one(server: ReadingServer, alice: User, bob: User) -> None:
    rooms = [await alice.create(name=f"Room {number}") for number in range(5)]
    for room_id in rooms:
        await alice.invite(room_id, bob)
    assert len(await _stripped(server, bob, *rooms)) == 5
    with measure_database() as one:
        await _stripped(server, bob, rooms[0])
    with measure_database() as many:
        told = await _stripped(server, bob, *rooms)
    names = {
        room_id: next(event["content"]["name"] for event in events if event["type"] == "m.room.name")
        for room_id, events in told.items()
    }
    assert names == {room_id: f"Room {number}" for number, room_id in enumerate(rooms)}
    assert many.statements - 5 == one.statements - 1


async def test_a_room_whose_state_is_not_known_tells_of_the_invitation_alone(
    server: ReadingServer, alice: User, bob: User
) -> None:
    room_id = await alice.create()
    await alice.invite(room_id, bob)
    async with server.db.connection() as conn:
        await conn.execute(
            "UPDATE events SET state_id = NULL WHERE type = 'm.room.member' AND state_key = $1", bob.user_id
        )
    told = (await _stripped(server, bob, room_id))[room_id]
    assert [(event["type"], event["state_key"]) for event in told] == [("m.room.member", bob.user_id)]
