"""What passes is told to the servers that it concerns, coalesced, and nothing of what is private."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from federation.outbound.queue import LOOK_SECONDS
from homeserver.config.schema import PresenceConfig
from homeserver.core.clock import Clock
from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.core.requester import Requester
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.ephemeral.receipts import Receipts
from homeserver.services.ephemeral.typing import Typing
from homeserver.services.rooms.drafts import Draft
from storage.database import Database
from storage.destination_shares import list_edu_lags
from tests.federation.sending.world import (
    CAROL,
    CLAUDE,
    ELSEWHERE,
    EVE,
    THERE,
    Sending,
    accepts,
    feeding,
    is_away,
    joined,
    make_sending,
    room_with,
    say,
)
from tests.rooms.workers import ALICE, BOB, SERVER, Worker, member
from tests.waiting import wait_until


@dataclass
class Ephemeral:
    """What the users of this server do."""

    db: Database
    typing: Typing
    receipts: Receipts
    presence: Presence

    async def read(
        self,
        room_id: RoomId,
        event_id: EventId,
        *,
        user_id: UserId = BOB,
        receipt_type: str = "m.read",
        thread_id: str | None = None,
    ) -> None:
        """Puts a receipt."""
        requester = Requester(user_id)
        await self.receipts.put(requester, room_id, event_id, receipt_type=receipt_type, thread_id=thread_id)

    async def is_now(self, user_id: UserId, state: str, status_msg: str | None = None) -> None:
        """Sets a presence."""
        await self.presence.put(Requester(user_id), user_id, state=state, status_msg=status_msg)


def make_ephemeral(worker: Worker, clock: Clock) -> Ephemeral:
    presence = Presence(db=worker.db, clock=clock, config=PresenceConfig())
    return Ephemeral(
        worker.db,
        Typing(db=worker.db, bus=worker.bus, clock=clock, presence=presence),
        Receipts(db=worker.db, bus=worker.bus, clock=clock, presence=presence),
        presence,
    )


@pytest.fixture
async def sending(worker: Worker) -> AsyncIterator[Sending]:
    """A worker that sends and follows what passes."""
    async with feeding(make_sending(worker.db, worker.bus, speed=20)) as running:
        yield running


@pytest.fixture
def ours(worker: Worker, sending: Sending) -> Ephemeral:
    """The users of this server."""
    return make_ephemeral(worker, sending.clock)


async def has_got(sending: Sending, edu_type: str, condition: Callable[[list[dict[str, Any]]], bool]) -> None:
    """Waits until the EDUs of a type that THERE has got meet a condition."""
    await wait_until(lambda: condition(sending.servers.edus(THERE, edu_type)))


async def waits(sending: Sending, text: str) -> None:
    """Waits until something with a text waits for THERE."""
    await wait_until(lambda: text.encode() in b"".join(sending.pending.take(THERE, limit=100).edus))


async def typing_of(sending: Sending, *expected: tuple[UserId, bool]) -> None:
    def is_as_expected() -> bool:
        edus = sending.servers.edus(THERE, "m.typing")
        return [(edu["user_id"], edu["typing"]) for edu in edus] == list(expected)

    await wait_until(is_as_expected)


async def test_typing_is_told_with_its_end(worker: Worker, sending: Sending, ours: Ephemeral) -> None:
    room_id = await room_with(worker, BOB, CAROL)
    await ours.typing.start(Requester(ALICE), room_id, ALICE, timeout_ms=60_000)
    await typing_of(sending, (ALICE, True))
    await ours.typing.stop(Requester(ALICE), room_id, ALICE)
    await typing_of(sending, (ALICE, True), (ALICE, False))
    assert sending.servers.edus(THERE, "m.typing")[0] == {"room_id": room_id, "user_id": ALICE, "typing": True}


async def test_what_passes_while_a_transaction_is_on_its_way_is_told_after_it(worker: Worker) -> None:
    room_id = await room_with(worker, CAROL)
    async with feeding(make_sending(worker.db, worker.bus, speed=1.0)) as sending:
        ours = make_ephemeral(worker, sending.clock)
        sending.servers.silent[THERE] = answer = asyncio.Event()
        await say(worker, room_id, "hello")
        await wait_until(lambda: sending.servers.bodies(THERE) == ["hello"])
        await ours.typing.start(Requester(ALICE), room_id, ALICE, timeout_ms=60_000)
        await waits(sending, "m.typing")
        began = asyncio.get_running_loop().time()
        del sending.servers.silent[THERE]
        answer.set()
        await typing_of(sending, (ALICE, True))
        assert asyncio.get_running_loop().time() - began < LOOK_SECONDS / 2


async def test_typing_that_goes_on_is_repeated(worker: Worker, sending: Sending, ours: Ephemeral) -> None:
    room_id = await room_with(worker, CAROL)
    await ours.typing.start(Requester(ALICE), room_id, ALICE, timeout_ms=120_000)
    await has_got(sending, "m.typing", lambda edus: len(edus) >= 2)
    assert all(edu["typing"] for edu in sending.servers.edus(THERE, "m.typing"))


async def test_what_other_servers_users_do_is_not_passed_on(worker: Worker, sending: Sending, ours: Ephemeral) -> None:
    room_id = await room_with(worker, BOB, CAROL, EVE)
    (event_id,) = await say(worker, room_id, "hello")
    content = {"m.read": {EVE: {"event_ids": [event_id], "data": {"ts": 1}}}}
    await ours.typing.receive(ELSEWHERE, {"room_id": room_id, "user_id": EVE, "typing": True})
    await ours.receipts.receive(ELSEWHERE, {room_id: content})
    await ours.presence.receive(ELSEWHERE, {"push": [{"user_id": EVE, "presence": "online", "last_active_ago": 1}]})
    await ours.typing.start(Requester(ALICE), room_id, ALICE, timeout_ms=60_000)
    await ours.read(room_id, event_id)
    await ours.is_now(BOB, "online")
    await has_got(sending, "m.presence", bool)
    await has_got(sending, "m.receipt", bool)
    assert str(EVE) not in str(sending.servers.received[THERE])


async def test_public_receipts_are_told_and_private_ones_never(
    worker: Worker, sending: Sending, ours: Ephemeral
) -> None:
    room_id = await room_with(worker, BOB, CAROL)
    secret, public = await say(worker, room_id, "a", "b")
    await ours.read(room_id, secret, receipt_type="m.read.private")
    await ours.read(room_id, public)
    await has_got(sending, "m.receipt", bool)
    (content,) = sending.servers.edus(THERE, "m.receipt")
    receipt = content[room_id]["m.read"][BOB]
    assert content == {room_id: {"m.read": {BOB: receipt}}}
    assert receipt == {"event_ids": [public], "data": {"ts": receipt["data"]["ts"]}}


async def test_what_somebody_has_sent_needs_no_receipt(worker: Worker, sending: Sending, ours: Ephemeral) -> None:
    room_id = await room_with(worker, BOB, CAROL)
    (event_id,) = await say(worker, room_id, "mine")
    await ours.read(room_id, event_id, user_id=ALICE)
    await ours.read(room_id, event_id, user_id=BOB)
    await has_got(sending, "m.receipt", bool)
    assert str(ALICE) not in str(sending.servers.edus(THERE, "m.receipt"))


async def test_receipts_of_threads_stand_in_edus_of_their_own(
    worker: Worker, sending: Sending, ours: Ephemeral
) -> None:
    room_id = await room_with(worker, BOB, CAROL)
    (root,) = await say(worker, room_id, "root")
    relation = {"rel_type": "m.thread", "event_id": root}
    draft = Draft(
        type="m.room.message",
        sender=ALICE,
        content={"msgtype": "m.text", "body": "in it", "m.relates_to": relation},
        thread_root=root,
    )
    inside = (await worker.add(room_id, draft)).events[0].event_id
    gate = sending.servers.blocked[THERE] = asyncio.Event()
    await ours.read(room_id, root, thread_id="main")
    await ours.read(room_id, inside, thread_id=root)
    await ours.read(room_id, inside)
    await wait_until(lambda: THERE in sending.servers.in_flight)
    gate.set()

    def threads() -> set[str | None]:
        edus = sending.servers.edus(THERE, "m.receipt")
        return {edu[room_id]["m.read"][BOB]["data"].get("thread_id") for edu in edus}

    await wait_until(lambda: threads() == {"main", root, None})


async def test_receipts_are_coalesced_while_a_server_is_slow(worker: Worker, sending: Sending, ours: Ephemeral) -> None:
    room_id = await room_with(worker, BOB, CAROL)
    events = await say(worker, room_id, *map(str, range(8)))
    await wait_until(lambda: len(sending.servers.bodies(THERE)) == 8)
    gate = sending.servers.blocked[THERE] = asyncio.Event()
    await ours.typing.start(Requester(ALICE), room_id, ALICE, timeout_ms=60_000)
    await wait_until(lambda: THERE in sending.servers.in_flight)
    for event_id in events:
        await ours.read(room_id, event_id)
    await waits(sending, events[-1])
    gate.set()
    last = {"event_ids": [events[-1]]}
    await has_got(
        sending, "m.receipt", lambda edus: bool(edus) and edus[-1][room_id]["m.read"][BOB].items() >= last.items()
    )
    assert len(sending.servers.edus(THERE, "m.receipt")) <= 2


async def test_presence_is_told_to_servers_that_share_a_room(worker: Worker, sending: Sending, ours: Ephemeral) -> None:
    await room_with(worker, BOB, CAROL, CLAUDE)
    alone = await worker.create_room(creator=UserId("@dora:example.org"))
    await ours.is_now(UserId("@dora:example.org"), "online")
    await ours.is_now(BOB, "online", "hello")
    await has_got(sending, "m.presence", bool)
    pushes = [push for edu in sending.servers.edus(THERE, "m.presence") for push in edu["push"]]
    assert {push["user_id"] for push in pushes} == {BOB}, alone
    assert pushes[-1].items() >= {"presence": "online", "status_msg": "hello", "currently_active": True}.items()
    assert isinstance(pushes[-1]["last_active_ago"], int)
    assert ELSEWHERE not in sending.servers.received


async def test_who_begins_to_share_a_room_is_told_who_is_online(
    worker: Worker, sending: Sending, ours: Ephemeral
) -> None:
    room_id = await room_with(worker, BOB)
    await ours.is_now(BOB, "online")
    await ours.is_now(ALICE, "offline")
    await worker.add(room_id, member(CAROL, "join"))
    await has_got(sending, "m.presence", bool)
    pushes = [push for edu in sending.servers.edus(THERE, "m.presence") for push in edu["push"]]
    assert {push["user_id"] for push in pushes} == {BOB}


async def test_the_presence_of_a_local_newcomer_is_told(worker: Worker, sending: Sending, ours: Ephemeral) -> None:
    room_id = await room_with(worker, CAROL)
    await ours.is_now(BOB, "online")
    await worker.add(room_id, *joined(BOB))
    await has_got(sending, "m.presence", bool)
    assert sending.servers.edus(THERE, "m.presence")[0]["push"][0]["user_id"] == BOB


async def test_presence_can_be_turned_off(worker: Worker) -> None:
    async with feeding(make_sending(worker.db, worker.bus, presence_enabled=False)) as sending:
        ours = make_ephemeral(worker, sending.clock)
        room_id = await room_with(worker, BOB, CAROL)
        await ours.is_now(BOB, "online")
        await ours.typing.start(Requester(ALICE), room_id, ALICE, timeout_ms=60_000)
        await has_got(sending, "m.typing", bool)
        assert not sending.servers.edus(THERE, "m.presence")


async def test_a_server_that_the_room_denies_is_told_nothing_that_passes_s7(
    worker: Worker, sending: Sending, ours: Ephemeral
) -> None:
    """S7: the access control list holds for what passes too."""
    content = {"allow": ["*"], "deny": ["there.*"]}
    acl = Draft(type="m.room.server_acl", sender=ALICE, state_key="", content=content)
    room_id = await worker.create_room(*joined(BOB, CAROL, EVE), acl)
    (event_id,) = await say(worker, room_id, "hello")
    await ours.typing.start(Requester(ALICE), room_id, ALICE, timeout_ms=60_000)
    await ours.read(room_id, event_id)
    await wait_until(lambda: bool(sending.servers.edus(ELSEWHERE, "m.typing")))
    await wait_until(lambda: bool(sending.servers.edus(ELSEWHERE, "m.receipt")))
    assert not [edu for received in sending.servers.received.get(THERE, []) for edu in received.edus]


async def test_what_was_missed_is_told_newest_first_when_a_server_is_back(
    worker: Worker, sending: Sending, ours: Ephemeral
) -> None:
    room_id = await room_with(worker, BOB, CAROL)
    events = await say(worker, room_id, "a", "b", "c")
    await wait_until(lambda: len(sending.servers.bodies(THERE)) == 3)
    sending.servers.answers[THERE] = is_away

    async def is_behind() -> bool:
        async with worker.db.connection() as conn:
            return bool(await list_edu_lags(conn, [THERE]))

    for event_id in events:
        await ours.read(room_id, event_id)
    await wait_until(is_behind)
    await ours.typing.start(Requester(ALICE), room_id, ALICE, timeout_ms=1_000)
    await ours.is_now(BOB, "unavailable", "busy")
    sending.servers.answers[THERE] = accepts
    await has_got(sending, "m.receipt", bool)
    await has_got(sending, "m.presence", lambda edus: "busy" in str(edus))
    (content,) = sending.servers.edus(THERE, "m.receipt")
    assert content[room_id]["m.read"][BOB]["event_ids"] == [events[-1]]


async def test_another_worker_tells_what_the_last_one_did_not(worker: Worker) -> None:
    """What a worker that has ended did not tell is read again from the saved position."""
    first = make_sending(worker.db, worker.bus, speed=20)
    room_id = await room_with(worker, BOB, CAROL)
    (event_id,) = await say(worker, room_id, "a")
    async with feeding(first):
        await wait_until(lambda: first.servers.bodies(THERE) == ["a"])
        gate = first.servers.blocked[THERE] = asyncio.Event()
        ours = make_ephemeral(worker, first.clock)
        await ours.typing.start(Requester(ALICE), room_id, ALICE, timeout_ms=60_000)
        await wait_until(lambda: THERE in first.servers.in_flight)
    gate.set()
    await ours.read(room_id, event_id)
    second = make_sending(worker.db, worker.bus, servers=first.servers, clock=first.clock)
    async with feeding(second):
        await has_got(second, "m.receipt", bool)
    assert second.servers.edus(THERE, "m.receipt")[0][room_id]["m.read"].keys() == {BOB}


async def test_large_rooms_are_told_less_often(worker: Worker) -> None:
    """With a hundred servers in the room, receipts of two seconds are told together."""
    users = [UserId(f"@u:s{number}.example") for number in range(100)]
    room_id = await room_with(worker, BOB, *users)
    events = await say(worker, room_id, *map(str, range(10)))
    async with feeding(make_sending(worker.db, worker.bus, speed=1)) as sending:
        ours = make_ephemeral(worker, sending.clock)
        await ours.read(room_id, events[0])
        one = users[0].server_name
        await wait_until(lambda: len(sending.servers.edus(one, "m.receipt")) == 1)
        for event_id in events[1:]:
            await ours.read(room_id, event_id)
        await wait_until(lambda: str(events[-1]) in str(sending.servers.edus(one, "m.receipt")))
        assert len(sending.servers.edus(one, "m.receipt")) == 2
    assert SERVER not in sending.servers.attempts
