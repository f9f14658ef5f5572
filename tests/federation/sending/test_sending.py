"""What a server has to send arrives: in order, once, whatever happens meanwhile."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from federation.outbound import delivery
from federation.outbound.queue import LOOK_SECONDS
from federation.outbound.shares import SHARES
from homeserver.core.errors import RemoteUnavailable
from homeserver.core.ids import ServerName
from storage.database import Database
from storage.destination_queues import (
    FAILING_PER_ROOM_MAX,
    KEPT_PER_ROOM,
    NewEdu,
    count_queues,
    insert_edus,
    list_statuses,
)
from tests.federation.sending.world import (
    CAROL,
    ELSEWHERE,
    EVE,
    THERE,
    OtherServers,
    Received,
    Sending,
    accepts,
    has_received,
    is_away,
    make_sending,
    refuses,
    room_with,
    running,
    say,
)
from tests.rooms.workers import Worker, message
from tests.waiting import wait_until


@pytest.fixture
def sending(worker: Worker) -> Sending:
    """A worker that sends what the other worker writes."""
    return make_sending(worker.db, worker.bus)


async def queued_events(db: Database, destination: ServerName = THERE) -> int:
    """How many events wait for a server."""
    async with db.connection() as conn:
        return sum(status.events for status in await list_statuses(conn, destination))


async def nothing_waits(db: Database) -> bool:
    async with db.connection() as conn:
        totals = await count_queues(conn)
        in_flight = await conn.fetchval("SELECT count(*) FROM destination_transactions")
    return totals.rows == 0 and totals.edus == 0 and in_flight == 0


async def test_messages_arrive_in_order_everywhere(worker: Worker, sending: Sending) -> None:
    rooms = [await room_with(worker, CAROL, EVE) for _ in range(3)]
    async with running(sending):
        for number in range(20):
            await say(worker, rooms[number % 3], str(number))
        for server in (THERE, ELSEWHERE):
            await has_received(sending, server, [str(number) for number in range(20)])
        await wait_until(lambda: nothing_waits(worker.db))


async def test_a_message_leaves_at_once(worker: Worker) -> None:
    """By the wake, long before anybody looks."""
    sending = make_sending(worker.db, worker.bus, speed=1.0)
    room_id = await room_with(worker, CAROL)
    async with running(sending):
        await say(worker, room_id, "first")
        await wait_until(lambda: sending.servers.bodies(THERE) == ["first"])
        began = asyncio.get_running_loop().time()
        await say(worker, room_id, "second")
        await wait_until(lambda: sending.servers.bodies(THERE) == ["first", "second"])
        assert asyncio.get_running_loop().time() - began < 1.0


async def test_what_comes_while_a_transaction_is_on_its_way_follows_at_once(worker: Worker) -> None:
    """A transaction has held all that waited; what has come since is not left to the regular look."""
    sending = make_sending(worker.db, worker.bus, speed=1.0)
    room_id = await room_with(worker, CAROL)
    async with running(sending):
        for number in range(3):
            sending.servers.silent[THERE] = answer = asyncio.Event()
            await say(worker, room_id, f"message {number}")
            await wait_until(lambda number=number: f"message {number}" in sending.servers.bodies(THERE))
            await say(worker, room_id, f"meanwhile {number}")
            await wait_until(lambda: _queued_at_least(worker.db, 2))
            began = asyncio.get_running_loop().time()
            del sending.servers.silent[THERE]
            answer.set()
            await wait_until(lambda: nothing_waits(worker.db))
            assert asyncio.get_running_loop().time() - began < LOOK_SECONDS / 2
        assert len(sending.servers.bodies(THERE)) == 6


async def _queued_at_least(db: Database, events: int) -> bool:
    return await queued_events(db) >= events


async def test_nothing_is_lost_if_no_wake_arrives_s39(worker: Worker, sending: Sending) -> None:
    """S39: the wakes of the queues are only a shortcut; what waits is found by looking."""
    room_id = await room_with(worker, CAROL)

    async def nobody_hears(keys: object, position: int) -> None: ...

    sending.bus.wake = nobody_hears  # type: ignore[method-assign]
    async with running(sending):
        await say(worker, room_id, "a", "b")
        await has_received(sending, THERE, ["a", "b"])


async def test_what_comes_together_is_sent_together(worker: Worker, sending: Sending) -> None:
    room_id = await room_with(worker, CAROL)
    bodies = [str(number) for number in range(120)]
    for start in range(0, 120, 30):
        await worker.add(room_id, *(message(body) for body in bodies[start : start + 30]))
    async with running(sending):
        await has_received(sending, THERE, bodies)
        sizes = [len(received.pdus) for received in sending.servers.received[THERE]]
        assert max(sizes) == 50
        assert len(sizes) < 10


async def test_an_event_is_in_the_form_that_servers_exchange(worker: Worker, sending: Sending) -> None:
    room_id = await room_with(worker, CAROL)
    async with running(sending):
        (event_id,) = await say(worker, room_id, "hello")
        await has_received(sending, THERE, ["hello"])
        (pdu,) = sending.servers.received[THERE][-1].pdus
    assert pdu.keys() >= {"auth_events", "prev_events", "hashes", "signatures", "depth", "room_id", "sender"}
    assert "event_id" not in pdu, event_id
    assert "unsigned" not in pdu


async def test_a_transaction_that_fails_is_sent_again_as_it_was(worker: Worker, sending: Sending) -> None:
    room_id = await room_with(worker, CAROL)
    sending.servers.answers[THERE] = is_away
    async with running(sending):
        await say(worker, room_id, "a")
        await wait_until(lambda: bool(sending.servers.attempts.get(THERE)))
        await say(worker, room_id, "b")
        await wait_until(lambda: len(sending.servers.attempts[THERE]) >= 2)
        sending.servers.answers[THERE] = accepts
        await has_received(sending, THERE, ["a", "b"])
    first = sending.servers.received[THERE][0]
    assert all(attempt == first for attempt in sending.servers.attempts[THERE][:2])


async def test_a_crash_between_sending_and_saving_doubles_nothing(worker: Worker) -> None:
    """The other server has taken it, this one has not noted that: the next worker sends the same under the same id."""
    room_id = await room_with(worker, CAROL)
    first = make_sending(worker.db, worker.bus)
    servers = first.servers

    servers.silent[THERE] = asyncio.Event()
    async with running(first):
        await say(worker, room_id, "a")
        await has_received(first, THERE, ["a"])
    del servers.silent[THERE]
    assert await queued_events(worker.db) > 0
    second = make_sending(worker.db, worker.bus, servers=servers)
    async with running(second):
        await say(worker, room_id, "b")
        await has_received(second, THERE, ["a", "b"])
        await wait_until(lambda: nothing_waits(worker.db))
    ids = [attempt.transaction_id for attempt in servers.attempts[THERE]]
    contents = {attempt.transaction_id: attempt.pdus for attempt in servers.attempts[THERE]}
    assert len(ids) > len(set(ids)), "it was sent again"
    assert all(attempt.pdus == contents[attempt.transaction_id] for attempt in servers.attempts[THERE])
    assert max(Counter(str(pdu) for received in servers.received[THERE] for pdu in received.pdus).values()) == 1


async def test_another_worker_takes_over_what_one_was_about_to_send(worker: Worker) -> None:
    room_id = await room_with(worker, CAROL)
    first = make_sending(worker.db, worker.bus)
    first.servers.blocked[THERE] = asyncio.Event()
    async with running(first):
        await say(worker, room_id, "a")
        await wait_until(lambda: THERE in first.servers.in_flight)
    del first.servers.blocked[THERE]
    second = make_sending(worker.db, worker.bus, servers=first.servers)
    async with running(second):
        await has_received(second, THERE, ["a"])
    ids = {attempt.transaction_id for attempt in first.servers.attempts[THERE]}
    assert len(ids) == 1


async def test_workers_share_the_servers_and_double_nothing(worker: Worker) -> None:
    """`OtherServers.put` fails if two send to the same server at once."""
    one = make_sending(worker.db, worker.bus)
    two = make_sending(worker.db, worker.bus, servers=one.servers)
    users = [type(CAROL)(f"@u:s{number}.example") for number in range(20)]
    room_id = await room_with(worker, *users)
    async with running(one):
        await wait_until(lambda: len(one.shares.held) == SHARES)
        async with running(two):
            await say(worker, room_id, *(f"{number}" for number in range(5)))
            await wait_until(lambda: len(one.shares.held) == len(two.shares.held) == SHARES // 2)
            assert not one.shares.held & two.shares.held
            await say(worker, room_id, *(f"{number}" for number in range(5, 10)))
            for user in users:
                await has_received(one, user.server_name, [f"{number}" for number in range(10)])
        await wait_until(lambda: len(one.shares.held) == SHARES)


async def test_an_outage_costs_few_rows_and_ends_with_the_newest(worker: Worker, sending: Sending) -> None:
    rooms = [await room_with(worker, CAROL, EVE) for _ in range(2)]
    sending.servers.answers[THERE] = is_away
    async with running(sending):
        await say(worker, rooms[0], "lost?")
        await wait_until(lambda: bool(sending.servers.attempts.get(THERE)))
        for start in range(0, 60, 30):
            bodies = [str(number) for number in range(start, start + 30)]
            for room_id in rooms:
                await worker.add(room_id, *(message(body) for body in bodies))
        await wait_until(lambda: len(sending.servers.bodies(ELSEWHERE)) == 121)
        async with worker.db.connection() as conn:
            (backlog,) = await list_statuses(conn, THERE)
        assert backlog.rooms == 2
        assert backlog.events <= 2 * FAILING_PER_ROOM_MAX
        sending.servers.answers[THERE] = accepts
        await wait_until(lambda: nothing_waits(worker.db))
    got = sending.servers.bodies(THERE)
    assert got[0] == "lost?", "what was in flight is sent as it was"
    assert Counter(got)["59"] == 2, "the newest of each room"
    assert 2 * KEPT_PER_ROOM <= len(got) <= 2 * FAILING_PER_ROOM_MAX + 2


async def test_who_asks_something_of_this_server_is_sent_to_at_once(worker: Worker) -> None:
    sending = make_sending(worker.db, worker.bus, speed=10.0)
    room_id = await room_with(worker, CAROL)
    sending.servers.answers[THERE] = is_away
    async with running(sending):
        await say(worker, room_id, "a")
        await wait_until(lambda: bool(sending.servers.attempts.get(THERE)))
        for _ in range(5):
            sending.clock.advance(3_600)
            await sending.destinations.failed(THERE)
        pause_ms = (await sending.destinations.status(THERE)).retry_at_ts - sending.clock.now_ms()
        assert pause_ms > 600_000
        sending.servers.answers[THERE] = accepts
        sending.destinations.note_contact(THERE)
        await has_received(sending, THERE, ["a"])


async def test_a_refused_event_is_not_sent_again(worker: Worker, sending: Sending) -> None:
    class RefusesEach(dict[str, Any]):
        def get(self, event_id: str, default: Any = None) -> Any:
            assert event_id.startswith("$")
            return {"error": "You may not"}

    room_id = await room_with(worker, CAROL)
    sending.servers.answers[THERE] = lambda _: {"pdus": RefusesEach()}
    async with running(sending):
        await say(worker, room_id, "a")
        await has_received(sending, THERE, ["a"])
        await say(worker, room_id, "b")
        await has_received(sending, THERE, ["a", "b"])
        await wait_until(lambda: nothing_waits(worker.db))


@pytest.mark.parametrize(
    "answer", [None, [], "pdus", {"pdus": 3}, {"pdus": {"$x": None}}, {"pdus": {"$x": {"error": {"a": 1}}}}]
)
async def test_whatever_is_answered_with_200_is_a_success(worker: Worker, sending: Sending, answer: Any) -> None:
    room_id = await room_with(worker, CAROL)
    sending.servers.answers[THERE] = lambda _: answer
    async with running(sending):
        await say(worker, room_id, "a", "b")
        await has_received(sending, THERE, ["a", "b"])
        await wait_until(lambda: nothing_waits(worker.db))


@pytest.mark.parametrize("status", [400, 413])
async def test_one_bad_event_does_not_block_a_server_s2(worker: Worker, sending: Sending, status: int) -> None:
    """S2: a server that refuses whole transactions for one event gets all the others."""

    def refuse_the_bad(received: Received) -> Any:
        if any(pdu["content"].get("body") == "bad" for pdu in received.pdus):
            return refuses(status, "M_BAD_JSON")(received)
        return accepts(received)

    room_id = await room_with(worker, CAROL)
    sending.servers.answers[THERE] = refuse_the_bad
    good = [str(number) for number in range(40)]
    await worker.add(room_id, *(message(body) for body in [*good[:13], "bad", *good[13:30]]))
    await worker.add(room_id, *(message(body) for body in good[30:]))
    async with running(sending):
        await has_received(sending, THERE, good)
        await wait_until(lambda: nothing_waits(worker.db))
    assert len(sending.servers.attempts[THERE]) < 40


async def test_an_event_that_cannot_be_read_does_not_block_a_server_s2(worker: Worker, sending: Sending) -> None:
    """S2: a row that is broken here costs one event."""
    room_id = await room_with(worker, CAROL)
    await say(worker, room_id, "a", "bad", "b")
    async with worker.db.connection() as conn:
        await conn.execute("UPDATE events SET federation_json = '{' WHERE client_json LIKE '%\"bad\"%'")
    async with running(sending):
        await has_received(sending, THERE, ["a", "b"])
        await wait_until(lambda: nothing_waits(worker.db))


async def test_a_server_that_refuses_everything_loses_next_to_nothing(worker: Worker, sending: Sending) -> None:
    room_id = await room_with(worker, CAROL)
    await worker.add(room_id, *(message(str(number)) for number in range(20)))
    sending.servers.answers[THERE] = refuses(400)
    async with running(sending):
        await wait_until(lambda: is_left_alone(sending))
        sending.servers.answers[THERE] = accepts
        await wait_until(lambda: nothing_waits(worker.db))
    assert sending.servers.bodies(THERE) == [str(number) for number in range(delivery.SKIPPED_MAX, 20)]


async def is_left_alone(sending: Sending) -> bool:
    return not await sending.destinations.is_due(THERE)


@pytest.mark.parametrize(("status", "errcode"), [(403, "M_FORBIDDEN"), (404, "M_UNRECOGNIZED"), (500, "M_UNKNOWN")])
async def test_a_server_that_takes_nothing_is_left_alone_and_loses_nothing(
    worker: Worker, sending: Sending, status: int, errcode: str
) -> None:
    room_id = await room_with(worker, CAROL)
    sending.servers.answers[THERE] = refuses(status, errcode)
    async with running(sending):
        await say(worker, room_id, "a")
        await wait_until(lambda: is_left_alone(sending))
        sending.servers.answers[THERE] = accepts
        await has_received(sending, THERE, ["a"])
    ids = {attempt.transaction_id for attempt in sending.servers.attempts[THERE]}
    assert len(ids) == 1


async def test_servers_that_do_not_answer_leave_room_for_others(worker: Worker, sending: Sending) -> None:
    """Many that hang at once do not hold back one that answers."""
    hanging = [type(CAROL)(f"@u:hang{number}.example") for number in range(30)]
    room_id = await room_with(worker, EVE, *hanging)
    for user in hanging:
        sending.servers.blocked[user.server_name] = asyncio.Event()
    async with running(sending):
        await say(worker, room_id, "a", "b")
        await has_received(sending, ELSEWHERE, ["a", "b"])


async def test_servers_that_are_not_allowed_are_not_queued_for(worker: Worker) -> None:
    sending = make_sending(worker.db, worker.bus, allowed=["there.example"])
    room_id = await room_with(worker, CAROL, EVE)
    async with running(sending):
        await say(worker, room_id, "a")
        await has_received(sending, THERE, ["a"])
        await wait_until(lambda: nothing_waits(worker.db))
    assert ELSEWHERE not in sending.servers.attempts


async def test_events_that_were_purged_meanwhile_are_passed_over(worker: Worker, sending: Sending) -> None:
    room_id = await room_with(worker, CAROL)
    sending.servers.answers[THERE] = is_away
    async with running(sending):
        await say(worker, room_id, "a", "b")
        await wait_until(lambda: bool(sending.servers.attempts.get(THERE)))
        async with worker.db.connection() as conn:
            await conn.execute('DELETE FROM events WHERE client_json LIKE \'%"body":"a"%\'')
        sending.servers.answers[THERE] = accepts
        await has_received(sending, THERE, ["b"])
        await wait_until(lambda: nothing_waits(worker.db))


async def test_edus_that_must_arrive_do_so_in_order_and_once(worker: Worker, sending: Sending) -> None:
    """As messages to devices will; of those with one key only the newest waits."""
    await room_with(worker, CAROL)
    edus = [NewEdu(destination=THERE, edu_type="m.direct_to_device", content=f'{{"n":{n}}}') for n in range(150)]
    sending.servers.answers[THERE] = is_away
    async with running(sending):
        async with worker.db.transaction() as conn:
            await insert_edus(conn, edus, now_ms=sending.clock.now_ms())
        for number in range(3):
            edu = NewEdu(
                destination=THERE,
                edu_type="m.signing_key_update",
                content=f'{{"key":{number}}}',
                replace_key="@alice:example.org",
            )
            async with worker.db.transaction() as conn:
                await insert_edus(conn, [edu], now_ms=sending.clock.now_ms())
        await wait_until(lambda: len(sending.servers.attempts.get(THERE, [])) >= 2)
        sending.servers.answers[THERE] = accepts
        await wait_until(lambda: nothing_waits(worker.db))
    assert sending.servers.edus(THERE, "m.direct_to_device") == [{"n": number} for number in range(150)]
    assert sending.servers.edus(THERE, "m.signing_key_update") == [{"key": 2}]


async def test_no_message_is_lost_between_two_servers_that_come_and_go(worker: Worker) -> None:
    """Workers start and stop, the other server fails now and then: still everything comes, in order and once."""
    room_id = await room_with(worker, CAROL)
    first = make_sending(worker.db, worker.bus)
    servers: OtherServers = first.servers
    attempts = 0

    def fails_often(received: Received) -> Any:
        nonlocal attempts
        attempts += 1
        if attempts % 3:
            raise RemoteUnavailable("a hiccup")
        return accepts(received)

    servers.answers[THERE] = fails_often
    bodies: list[str] = []
    for round_number in range(4):
        sending = make_sending(worker.db, worker.bus, servers=servers, clock=first.clock)
        async with running(sending):
            for number in range(3):
                bodies.append(f"{round_number}.{number}")
                await say(worker, room_id, bodies[-1])
            await wait_until(lambda: bool(servers.bodies(THERE)))
    sending = make_sending(worker.db, worker.bus, servers=servers, clock=first.clock)
    async with running(sending):
        await has_received(sending, THERE, bodies)
