"""EDUs of other servers: each may speak for its own users only, where they are, and where the room lets it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from federation.inbound.edus import EDUS_MAX, EduReceiver
from homeserver.config.schema import PresenceConfig
from homeserver.core.edu import Edu
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.ephemeral.receipts import Receipts
from homeserver.services.ephemeral.typing import Typing
from homeserver.services.rooms.drafts import Draft
from homeserver.services.rooms.joins_under_way import JoinsUnderWay, lease_of_join
from homeserver.services.rooms.server_access import ServerAccess
from storage.leases import acquire_leases, delete_leases
from storage.positions import stream_bound
from storage.presence import find_presence
from storage.state import StateStore
from tests.fast_clock import FastClock
from tests.federation.sending.world import CAROL, ELSEWHERE, EVE, THERE, joined, room_with, say
from tests.rooms.workers import ALICE, BOB, Worker

STRANGER = UserId("@stranger:there.example")


class Receiver:
    """An `EduReceiver`, and what it has changed."""

    def __init__(self, worker: Worker, **others: Any) -> None:
        clock = FastClock()
        self._db = worker.db
        self._presence = presence = Presence(db=worker.db, clock=clock, config=PresenceConfig())
        self._edus = EduReceiver(
            db=worker.db,
            access=ServerAccess(states=StateStore()),
            typing=Typing(db=worker.db, bus=worker.bus, clock=clock, presence=presence),
            receipts=Receipts(db=worker.db, bus=worker.bus, clock=clock, presence=presence),
            presence=presence,
            arrivals=JoinsUnderWay(db=worker.db, clock=FastClock(speed=1)),
            others=others,
        )

    async def receive(self, origin: ServerName, *edus: tuple[str, Mapping[str, Any]]) -> None:
        """Takes EDUs."""
        await self._edus.receive(origin, [Edu(edu_type, origin, content) for edu_type, content in edus])

    async def typing(self) -> set[str]:
        """Who is typing anywhere."""
        async with self._db.connection() as conn:
            return {row["user_id"] for row in await conn.fetch("SELECT user_id FROM typing WHERE is_typing")}

    async def receipts(self) -> set[tuple[str, str, str]]:
        """All receipts: user, type, event."""
        async with self._db.connection() as conn:
            return {tuple(row) for row in await conn.fetch("SELECT user_id, receipt_type, event_id FROM receipts")}

    async def presence(self, user_id: UserId) -> str | None:
        """A user's presence, if there is any."""
        async with self._db.connection() as conn:
            row = await find_presence(conn, user_id)
        return None if row is None else row.presence

    async def synced_presence(self, user_id: UserId, *, since: int) -> set[tuple[str, str]]:
        """Whose presence a user's sync tells, and what it is."""
        async with self._db.connection() as conn:
            upto = await stream_bound(conn)
            told = await self._presence.changed(conn, user_id, since=since, upto=upto)
        return {(event["sender"], event["content"]["presence"]) for event in told}


@pytest.fixture
def receiver(worker: Worker) -> Receiver:
    return Receiver(worker)


def types(room_id: RoomId, user_id: UserId) -> tuple[str, Mapping[str, Any]]:
    return "m.typing", {"room_id": room_id, "user_id": user_id, "typing": True}


def reads(room_id: RoomId, user_id: UserId, event_id: EventId, kind: str = "m.read") -> tuple[str, Mapping[str, Any]]:
    return "m.receipt", {room_id: {kind: {user_id: {"event_ids": [event_id], "data": {"ts": 1}}}}}


def is_online(user_id: UserId) -> tuple[str, Mapping[str, Any]]:
    return "m.presence", {"push": [{"user_id": user_id, "presence": "online", "last_active_ago": 10}]}


async def test_what_a_server_tells_of_its_own_users_counts(worker: Worker, receiver: Receiver) -> None:
    room_id = await room_with(worker, CAROL)
    (event_id,) = await say(worker, room_id, "hello")
    await receiver.receive(THERE, types(room_id, CAROL), reads(room_id, CAROL, event_id), is_online(CAROL))
    assert await receiver.typing() == {CAROL}
    assert await receiver.receipts() == {(CAROL, "m.read", event_id)}
    assert await receiver.presence(CAROL) == "online"


@pytest.mark.parametrize("victim", [ALICE, BOB, EVE, STRANGER])
async def test_a_server_speaks_for_its_own_users_in_their_rooms_only_s16(
    worker: Worker, receiver: Receiver, victim: UserId
) -> None:
    """S16: neither for users of this server nor of another, nor for its own who are not in the room."""
    room_id = await room_with(worker, BOB, CAROL, EVE)
    (event_id,) = await say(worker, room_id, "hello")
    await receiver.receive(THERE, types(room_id, victim), reads(room_id, victim, event_id), is_online(victim))
    assert await receiver.typing() == set()
    assert await receiver.receipts() == set()
    assert await receiver.presence(victim) is None


async def test_presence_comes_before_the_join_that_it_is_told_for(worker: Worker, receiver: Receiver) -> None:
    """A server tells of its users as soon as it has let somebody in, and only then says that it has."""
    lease = lease_of_join(RoomId("!room:there.example"))
    async with worker.db.connection() as conn:
        await acquire_leases(conn, [lease], holder="join", duration_ms=60_000)
    async with asyncio.TaskGroup() as both:
        both.create_task(receiver.receive(THERE, is_online(CAROL), is_online(STRANGER)))
        await room_with(worker, CAROL)
        async with worker.db.connection() as conn:
            await delete_leases(conn, [lease], holder="join")
    assert await receiver.presence(CAROL) == "online"
    assert await receiver.presence(STRANGER) is None


@pytest.mark.parametrize("since", [0, 1])
async def test_syncs_tell_the_presence_of_other_servers_users_who_share_a_room(
    worker: Worker, receiver: Receiver, since: int
) -> None:
    await room_with(worker, CAROL)
    await worker.create_room(*joined(EVE), creator=BOB)
    await receiver.receive(THERE, is_online(CAROL))
    await receiver.receive(ELSEWHERE, is_online(EVE))
    assert await receiver.synced_presence(ALICE, since=since) == {(CAROL, "online")}
    assert await receiver.synced_presence(BOB, since=since) == {(EVE, "online")}


async def test_private_receipts_of_others_are_no_business_of_ours(worker: Worker, receiver: Receiver) -> None:
    room_id = await room_with(worker, CAROL)
    (event_id,) = await say(worker, room_id, "hello")
    await receiver.receive(THERE, reads(room_id, CAROL, event_id, "m.read.private"))
    assert await receiver.receipts() == set()


async def test_a_receipt_stands_on_an_event_of_its_room_s16(worker: Worker, receiver: Receiver) -> None:
    """S16: an event of another room is none that the user can have read there."""
    room_id, other = await room_with(worker, CAROL), await room_with(worker, EVE)
    (event_id,) = await say(worker, other, "hello")
    await receiver.receive(THERE, reads(room_id, CAROL, event_id), reads(other, CAROL, event_id))
    assert await receiver.receipts() == set()


async def test_a_server_that_a_room_denies_is_not_heard_there_s7(worker: Worker, receiver: Receiver) -> None:
    """S7: access control lists hold for typing and receipts, in either case of the letters, room by room."""
    content = {"allow": ["*"], "deny": ["THERE.example"]}
    acl = Draft(type="m.room.server_acl", sender=ALICE, state_key="", content=content)
    closed = await worker.create_room(*joined(CAROL, EVE), acl)
    open_to_all = await room_with(worker, CAROL)
    (in_closed,), (in_open,) = await say(worker, closed, "a"), await say(worker, open_to_all, "b")
    both = {**reads(closed, CAROL, in_closed)[1], **reads(open_to_all, CAROL, in_open)[1]}
    await receiver.receive(THERE, types(closed, CAROL), ("m.receipt", both))
    await receiver.receive(ELSEWHERE, types(closed, EVE), reads(closed, EVE, in_closed))
    assert await receiver.typing() == {EVE}
    assert await receiver.receipts() == {(CAROL, "m.read", in_open), (EVE, "m.read", in_closed)}


@pytest.mark.parametrize(
    "bad",
    [
        ("m.typing", {}),
        ("m.typing", {"room_id": 3, "user_id": None, "typing": "yes"}),
        ("m.typing", {"room_id": "!nowhere:there.example", "user_id": CAROL, "typing": True}),
        ("m.receipt", {"no room": {"m.read": {}}, "!a:b": 7, "!c:d": {"m.read": [1]}}),
        ("m.receipt", {"!a:b": {"m.read": {CAROL: {"event_ids": [], "data": {}}}}}),
        ("m.presence", {"push": "everybody"}),
        ("m.presence", {"push": [None, {"user_id": CAROL}, {"user_id": CAROL, "presence": "asleep"}]}),
        ("m.unheard_of", {"x": 1}),
        ("org.fails", {}),
    ],
)
async def test_what_is_wrong_with_one_does_not_hurt_the_others(worker: Worker, bad: tuple[str, Any]) -> None:
    async def fails(origin: ServerName, content: Mapping[str, Any]) -> None:
        raise ZeroDivisionError

    receiver = Receiver(worker, **{"org.fails": fails})
    room_id = await room_with(worker, CAROL)
    await receiver.receive(THERE, bad, types(room_id, CAROL))
    assert await receiver.typing() == {CAROL}


async def test_edus_of_other_kinds_reach_what_they_are_for(worker: Worker) -> None:
    taken = []

    async def take(origin: ServerName, content: Mapping[str, Any]) -> None:
        taken.append((origin, content))

    receiver = Receiver(worker, **{"m.direct_to_device": take})
    await receiver.receive(THERE, ("m.direct_to_device", {"a": 1}))
    assert taken == [(THERE, {"a": 1})]


async def test_no_more_than_a_transaction_may_hold_are_taken(worker: Worker) -> None:
    taken = []

    async def take(origin: ServerName, content: Mapping[str, Any]) -> None:
        taken.append(content)

    receiver = Receiver(worker, count=take)
    await receiver.receive(THERE, *[("count", {})] * (EDUS_MAX + 50))
    assert len(taken) == EDUS_MAX
