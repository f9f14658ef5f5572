"""Which servers are served at all: only those in the room, that it lets take part, and nobody learns why not."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from homeserver.core.ids import RoomId, ServerName
from homeserver.services.rooms.drafts import Draft
from homeserver.services.rooms.server_access import ServerAccess
from storage.state import StateStore
from tests.api.server import refused
from tests.federation.reading.world import BEN, BOB, CARA, OTHER, THIRD, V1, World
from tests.rooms.consistency import all_events
from tests.rooms.workers import ALICE, Worker, member, message
from tests.web.harness import Reply

Ask = Callable[[World, str, str, str], Awaitable[Reply]]


async def _state(world: World, room_id: str, event_id: str, origin: str) -> Reply:
    return await world.ask(f"/state/{room_id}", event_id=event_id, origin=origin)


async def _state_ids(world: World, room_id: str, event_id: str, origin: str) -> Reply:
    return await world.ask(f"/state_ids/{room_id}", event_id=event_id, origin=origin)


async def _event_auth(world: World, room_id: str, event_id: str, origin: str) -> Reply:
    return await world.ask(f"/event_auth/{room_id}/{event_id}", origin=origin)


async def _backfill(world: World, room_id: str, event_id: str, origin: str) -> Reply:
    return await world.ask(f"/backfill/{room_id}", v=event_id, limit=10, origin=origin)


async def _missing_events(world: World, room_id: str, event_id: str, origin: str) -> Reply:
    body: dict[str, Any] = {"earliest_events": [], "latest_events": [event_id]}
    return await world.post(f"/get_missing_events/{room_id}", body, origin=origin)


async def _timestamp_to_event(world: World, room_id: str, event_id: str, origin: str) -> Reply:
    return await world.ask(f"/timestamp_to_event/{room_id}", ts=0, dir="f", origin=origin)


OF_ROOMS: dict[str, Ask] = {
    "state": _state,
    "state_ids": _state_ids,
    "event_auth": _event_auth,
    "backfill": _backfill,
    "get_missing_events": _missing_events,
    "timestamp_to_event": _timestamp_to_event,
}


async def test_absent_and_forbidden_have_one_answer(world: World) -> None:
    """S19, S7: a room that is nowhere, one that the server is not in, has left, or must stay out of: the same bytes."""
    unknown, foreign, left, denied = (
        RoomId("!nowhere:test"),
        await world.create_room(),
        await world.create_room(),
        await world.create_room(),
    )
    event_ids = {room_id: await world.send(room_id, "hello") for room_id in (foreign, left, denied)}
    for room_id in (left, denied):
        await world.membership(room_id, BOB, "join")
        for ask in OF_ROOMS.values():
            assert (await ask(world, room_id, event_ids[room_id], OTHER)).status == 200
    await world.membership(left, BOB, "leave")
    await world.set_state(denied, "m.room.server_acl", {"allow": ["*"], "deny": ["OTHER.*"]})
    for name, ask in OF_ROOMS.items():
        replies = [
            await ask(world, room_id, event_ids.get(room_id, "$x"), OTHER)
            for room_id in (unknown, foreign, left, denied)
        ]
        for reply in replies:
            refused(reply, 403, "M_FORBIDDEN")
        assert len({reply.body for reply in replies}) == 1, name
    of_events = [await world.ask(f"/event/{event_id}") for event_id in ("$nowhere", *event_ids.values())]
    for reply in of_events:
        refused(reply, 404, "M_NOT_FOUND")
    assert len({reply.body for reply in of_events}) == 1


async def test_a_room_that_this_server_has_left(world: World) -> None:
    """Others may ask for what was before: else they could never take the leave, should they lack what it refers to."""
    room_id = await world.create_room()
    event_id = await world.send(room_id, "hello")
    await world.membership(room_id, BOB, "join")
    await world.alice.post(f"/rooms/{room_id}/leave")
    for ask in OF_ROOMS.values():
        assert (await ask(world, room_id, event_id, OTHER)).status == 200


@pytest.mark.parametrize(
    ("acl", "served"),
    [
        ({"allow": ["*"]}, True),
        ({"allow": ["*"], "deny": ["elsewhere.*"]}, True),
        ({"allow": ["*.example"], "deny": ["third.*"]}, True),
        ({"allow": ["*"], "deny": ["other.example"]}, False),
        ({"allow": ["*"], "deny": ["*.EXAMPLE"]}, False),
        ({"allow": ["third.example"]}, False),
        ({}, False),
        ({"allow": "*"}, False),
    ],
)
async def test_access_control_lists(world: World, acl: Any, served: bool) -> None:
    """S7, S15."""
    room_id = await world.create_room()
    event_id = await world.send(room_id, "hello")
    await world.membership(room_id, BOB, "join")
    await world.add(
        room_id,
        Draft(type="m.room.server_acl", sender=world.alice_id, state_key="", content=acl),
    )
    for ask in OF_ROOMS.values():
        assert (await ask(world, room_id, event_id, OTHER)).status == (200 if served else 403)


async def test_a_list_that_is_changed_or_redacted_counts_at_once(world: World) -> None:
    """S15: lists are compiled once, by their event."""
    room_id = await world.create_room()
    event_id = await world.send(room_id, "hello")
    await world.membership(room_id, BOB, "join")
    assert (await _backfill(world, room_id, event_id, OTHER)).status == 200
    await world.set_state(room_id, "m.room.server_acl", {"allow": ["*"], "deny": [OTHER]})
    assert (await _backfill(world, room_id, event_id, OTHER)).status == 403
    open_id = await world.set_state(room_id, "m.room.server_acl", {"allow": ["*"]})
    assert (await _backfill(world, room_id, event_id, OTHER)).status == 200
    # What is left of it after a redaction lets nobody in.
    await world.alice.put(f"/rooms/{room_id}/redact/{open_id}/r", {})
    assert (await _backfill(world, room_id, event_id, OTHER)).status == 403


async def test_a_giant_list_costs_little(world: World) -> None:
    """S15: matching is linear, whatever the patterns."""
    room_id = await world.create_room()
    event_id = await world.send(room_id, "hello")
    await world.membership(room_id, BOB, "join")
    deny = [f"*{'a*' * 20}{number}" for number in range(1200)]
    await world.set_state(room_id, "m.room.server_acl", {"allow": ["*"], "deny": deny})
    for _ in range(20):
        assert (await _backfill(world, room_id, event_id, OTHER)).status == 200


async def test_every_request_must_be_signed(world: World) -> None:
    for path in ("/event/$x", "/state/!x:test", "/state_ids/!x:test", "/backfill/!x:test", "/event_auth/!x:test/$x",
                 "/timestamp_to_event/!x:test", "/query/profile", "/query/directory", "/query/more", "/publicRooms",
                 "/hierarchy/!x:test"):  # fmt: skip
        refused(await world.site.request("GET", f"{V1}{path}"), 401, "M_UNAUTHORIZED")
    body: dict[str, Any] = {"earliest_events": [], "latest_events": []}
    refused(await world.site.request("POST", f"{V1}/get_missing_events/!x:test", json=body), 401, "M_UNAUTHORIZED")
    refused(await world.site.request("POST", f"{V1}/publicRooms", json={}), 401, "M_UNAUTHORIZED")


async def test_events_of_other_rooms_are_not_found(world: World) -> None:
    """S1: the room of the path is the room of the event."""
    here, there = await world.create_room(), await world.create_room()
    await world.membership(here, BOB, "join")
    await world.membership(there, BOB, "join")
    foreign = await world.send(there, "there")
    for ask in (_state, _state_ids, _event_auth):
        known = await ask(world, here, foreign, OTHER)
        refused(known, 404, "M_NOT_FOUND")
        assert known.body == (await ask(world, here, "$nowhere", OTHER)).body
    assert (await _backfill(world, here, foreign, OTHER)).json["pdus"] == []
    assert (await _missing_events(world, here, foreign, OTHER)).json["events"] == []


async def test_servers_are_told_by_their_whole_name(world: World) -> None:
    """A server whose name is the end of another's has no part in the other's rooms."""
    room_id = await world.create_room()
    event_id = await world.send(room_id, "hello")
    await world.add(room_id, _join("@bob:other.example:8448"))
    for name in ("8448", "example:8448", "other.example", "xother.example:8448"):
        assert (await _backfill(world, room_id, event_id, name)).status == 403
    assert (await _backfill(world, room_id, event_id, "other.example:8448")).status == 200


def _join(user_id: str) -> Draft:
    return Draft(type="m.room.member", sender=user_id, state_key=user_id, content={"membership": "join"})  # type: ignore[arg-type]


async def _story(worker: Worker, visibility: str) -> RoomId:
    """Bob of another server is invited, joins and leaves; Ben of the same server is in for a while."""
    room_id = await worker.create_room(
        Draft(
            type="m.room.history_visibility",
            sender=ALICE,
            state_key="",
            content={"history_visibility": visibility},
        )
    )
    for body, change in (
        ("before", member(BOB, "invite", sender=ALICE)),
        ("invited", member(BOB, "join")),
        ("in", member(BOB, "leave")),
        ("away", member(BEN, "join")),
        ("back", member(BEN, "leave")),
    ):
        await worker.add(room_id, message(body), change)
    await worker.add(room_id, message("after"))
    return room_id


async def _seen(worker: Worker, room_id: RoomId, server: str) -> list[str]:
    """The messages that a server may see."""
    events = [event for event in await all_events(worker.db, room_id) if event.type == "m.room.message"]
    async with worker.db.connection() as conn:
        visible = await ServerAccess(states=StateStore()).visible(conn, ServerName(server), events)
    return [event.content["body"] for event, is_visible in zip(events, visible, strict=True) if is_visible]


@pytest.mark.parametrize(
    ("visibility", "left", "returned"),
    [
        ("joined", ["in", "back"], ["in", "back", "home"]),
        ("invited", ["invited", "in", "back"], ["invited", "in", "back", "home"]),
        ("shared", ["before", "invited", "in", "away", "back"], None),
        ("world_readable", None, None),
    ],
)
async def test_a_server_sees_what_any_of_its_users_may_see(
    worker: Worker, visibility: str, left: list[str] | None, returned: list[str] | None
) -> None:
    """S19, S20: also what it could see before its users left, and that is all."""
    room_id = await _story(worker, visibility)
    everything = ["before", "invited", "in", "away", "back", "after"]
    assert await _seen(worker, room_id, OTHER) == (everything if left is None else left)
    assert await _seen(worker, room_id, THIRD) == (everything if visibility == "world_readable" else [])
    await worker.add(room_id, member(BOB, "join"), message("home"))
    assert await _seen(worker, room_id, OTHER) == ([*everything, "home"] if returned is None else returned)


async def test_member_events_count_for_themselves(worker: Worker) -> None:
    room_id = await _story(worker, "joined")
    events = [event for event in await all_events(worker.db, room_id) if event.state_key in (BOB, BEN)]
    async with worker.db.connection() as conn:
        visible = await ServerAccess(states=StateStore()).visible(conn, ServerName(OTHER), events)
    memberships = [event.content["membership"] for event in events]
    # The invitation is seen by nobody in a room whose history begins with joining.
    assert list(zip(memberships, visible, strict=True)) == [
        ("invite", False),
        ("join", True),
        ("leave", True),
        ("join", True),
        ("leave", True),
    ]


async def test_the_state_before_a_page_is_read_in_few_statements(worker: Worker) -> None:
    """However many events and users, and however their states differ."""
    room_id = await worker.create_room(
        Draft(type="m.room.history_visibility", sender=ALICE, state_key="", content={"history_visibility": "joined"})
    )
    for number in range(30):
        await worker.add(room_id, member(ALICE.__class__(f"@user{number}:{OTHER}"), "join"), message(f"m{number}"))
    await worker.add(room_id, member(CARA, "join"))
    events = await all_events(worker.db, room_id)
    access = ServerAccess(states=StateStore())
    async with worker.db.connection() as conn:
        counted = _Counting(conn)
        visible = await access.visible(counted, ServerName(OTHER), events)  # type: ignore[arg-type]
    assert counted.statements <= 9
    messages = [is_visible for event, is_visible in zip(events, visible, strict=True) if event.state_key is None]
    assert messages == [True] * 30


class _Counting:
    """A connection that counts what it is asked."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self.statements = 0

    async def fetch(self, *args: Any) -> Any:
        self.statements += 1
        return await self._conn.fetch(*args)
