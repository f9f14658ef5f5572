"""Which servers an event goes to: those in the room when it was sent, however late that is looked at."""

import asyncio

import asyncpg

from federation.outbound.room_servers import RoomServers
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.services.rooms.drafts import Draft
from storage.database import Database
from storage.events import EventCache, find_event
from storage.outgoing_events import list_outgoing
from storage.positions import stream_bound
from storage.relayed_events import insert_relayed_event
from storage.state import StateStore
from tests.federation.sending.world import CAROL, CLAUDE, ELSEWHERE, EVE, THERE, room_with, say
from tests.rooms.workers import ALICE, BOB, SERVER, Worker, member, message
from tests.waiting import wait_until


def new_room_servers() -> RoomServers:
    return RoomServers(server_name=SERVER, states=StateStore(), events=EventCache())


async def told(
    db: Database, room_servers: RoomServers | None = None, *, limit: int = 1000
) -> dict[str, frozenset[ServerName]]:
    """The servers that each event so far is sent to, by its id; those that go to nobody are absent."""
    room_servers = room_servers or new_room_servers()
    found: dict[str, frozenset[ServerName]] = {}
    async with db.connection() as conn:
        since, upto = 0, await stream_bound(conn)
        while since < upto:
            events, since = await list_outgoing(conn, SERVER, since=since, upto=upto, limit=limit)
            servers = await room_servers.destinations(conn, events)
            ids = dict(await conn.fetch("SELECT event_nid, event_id FROM events"))
            found |= {ids[nid]: of_event for nid, of_event in servers.items()}
    return found


async def add(worker: Worker, room_id: RoomId, draft: Draft) -> str:
    """Adds an event; returns its id."""
    return (await worker.add(room_id, draft)).events[0].event_id


async def relay(worker: Worker, event_id: str) -> None:
    """Has this server pass on an event that was handed in here."""
    async with worker.db.connection() as conn:
        event = await find_event(conn, EventId(event_id))
        assert event is not None
        await insert_relayed_event(conn, event.event_nid)


async def test_a_message_goes_to_the_other_servers_in_the_room_once_each(worker: Worker) -> None:
    room_id = await room_with(worker, BOB, CAROL, CLAUDE, EVE)
    (event_id,) = await say(worker, room_id, "hello")
    assert (await told(worker.db))[event_id] == {THERE, ELSEWHERE}


async def test_events_of_other_servers_are_not_sent(worker: Worker) -> None:
    room_id = await room_with(worker, CAROL, EVE)
    (event_id,) = await say(worker, room_id, "hello", sender=CAROL)
    assert event_id not in await told(worker.db)


async def test_a_relayed_event_goes_to_all_but_its_origin(worker: Worker) -> None:
    room_id = await room_with(worker, CAROL, EVE)
    event_id = await add(worker, room_id, message("hello", sender=CAROL))
    await relay(worker, event_id)
    assert (await told(worker.db))[event_id] == {ELSEWHERE}


async def test_who_joins_later_is_not_sent_what_was_before(worker: Worker) -> None:
    """Even if the sender looks at the event only after the join."""
    room_id = await room_with(worker, EVE)
    (before,) = await say(worker, room_id, "before")
    await add(worker, room_id, member(CAROL, "join"))
    (after,) = await say(worker, room_id, "after")
    found = await told(worker.db)
    assert found[before] == {ELSEWHERE}
    assert found[after] == {THERE, ELSEWHERE}


async def test_who_leaves_is_sent_what_was_before_and_nothing_after(worker: Worker) -> None:
    room_id = await room_with(worker, CAROL, EVE)
    (before,) = await say(worker, room_id, "before")
    await add(worker, room_id, member(CAROL, "leave"))
    (after,) = await say(worker, room_id, "after")
    found = await told(worker.db)
    assert found[before] == {THERE, ELSEWHERE}
    assert found[after] == {ELSEWHERE}


async def test_a_server_stays_as_long_as_one_of_its_users(worker: Worker) -> None:
    room_id = await room_with(worker, CAROL, CLAUDE)
    await add(worker, room_id, member(CAROL, "leave"))
    (event_id,) = await say(worker, room_id, "still here?")
    assert (await told(worker.db))[event_id] == {THERE}


async def test_a_server_is_told_that_its_last_user_was_kicked_or_banned(worker: Worker) -> None:
    room_id = await room_with(worker, CAROL, EVE)
    kick = await add(worker, room_id, member(CAROL, "leave", sender=ALICE))
    ban = await add(worker, room_id, member(EVE, "ban", sender=ALICE))
    (after,) = await say(worker, room_id, "after")
    found = await told(worker.db)
    assert found[kick] == {THERE, ELSEWHERE}
    assert found[ban] == {ELSEWHERE}
    assert after not in found


async def test_an_invitation_is_told_to_those_in_the_room_and_its_refusal_to_the_invited_too(worker: Worker) -> None:
    room_id = await room_with(worker, EVE)
    invitation = await add(worker, room_id, member(CAROL, "invite", sender=ALICE))
    (meanwhile,) = await say(worker, room_id, "shall we?")
    refusal = await add(worker, room_id, member(CAROL, "leave", sender=ALICE))
    found = await told(worker.db)
    assert found[invitation] == {ELSEWHERE}
    assert found[meanwhile] == {ELSEWHERE}
    assert found[refusal] == {THERE, ELSEWHERE}


async def test_who_refuses_an_invitation_is_not_sent_that_back(worker: Worker) -> None:
    """It has been handed in here, for the others."""
    room_id = await room_with(worker, EVE)
    await add(worker, room_id, member(CAROL, "invite", sender=ALICE))
    refusal = await add(worker, room_id, member(CAROL, "leave"))
    await relay(worker, refusal)
    assert (await told(worker.db))[refusal] == {ELSEWHERE}


async def test_an_invitation_is_ended_by_a_ban_too(worker: Worker) -> None:
    room_id = await room_with(worker)
    await add(worker, room_id, member(CAROL, "invite", sender=ALICE))
    ban = await add(worker, room_id, member(CAROL, "ban", sender=ALICE))
    again = await add(worker, room_id, member(CAROL, "leave", sender=ALICE))
    found = await told(worker.db)
    assert found[ban] == {THERE}
    assert again not in found


async def test_who_knocks_is_told_of_the_refusal(worker: Worker) -> None:
    room_id = await worker.create_room(
        Draft(type="m.room.join_rules", sender=ALICE, state_key="", content={"join_rule": "knock"})
    )
    await add(worker, room_id, member(CAROL, "knock"))
    refusal = await add(worker, room_id, member(CAROL, "leave", sender=ALICE))
    assert (await told(worker.db))[refusal] == {THERE}


async def test_the_departure_of_this_servers_last_user_is_told(worker: Worker) -> None:
    room_id = await room_with(worker, CAROL)
    event_id = await add(worker, room_id, member(ALICE, "leave"))
    assert (await told(worker.db))[event_id] == {THERE}


async def test_what_was_handed_in_at_another_server_is_not_sent_again(worker: Worker) -> None:
    """This server was not in the room before the event: by send_join it went to a server that tells the others."""
    room_id = await room_with(worker, CAROL)
    await add(worker, room_id, member(ALICE, "leave"))
    event_id = await add(worker, room_id, member(BOB, "join"))
    (after,) = await say(worker, room_id, "I am in", sender=BOB)
    found = await told(worker.db)
    assert event_id not in found
    assert found[after] == {THERE}


async def test_a_server_that_the_room_denies_is_sent_events_only_s7(worker: Worker) -> None:
    """S7: it sees what happens while it is in the room, but nothing that passes; letters match in either case."""
    room_id = await room_with(worker, CAROL, EVE)
    acl = Draft(
        type="m.room.server_acl", sender=ALICE, state_key="", content={"allow": ["*"], "deny": ["ELSEWHERE.example"]}
    )
    await add(worker, room_id, acl)
    (event_id,) = await say(worker, room_id, "without you")
    assert (await told(worker.db))[event_id] == {THERE, ELSEWHERE}
    async with worker.db.connection() as conn:
        event = await find_event(conn, event_id)
        assert event is not None
        current = await new_room_servers().current(conn, [event.room_nid])
    assert current[event.room_nid] == {THERE}


async def test_rooms_with_unknown_members_go_by_the_list_of_servers(worker: Worker) -> None:
    room_id = await room_with(worker, CAROL)
    (event_id,) = await say(worker, room_id, "hello")
    async with worker.db.connection() as conn:
        await conn.execute(
            "INSERT INTO partial_rooms (room_nid, join_nid, servers) SELECT room_nid, 1, $1 FROM rooms", [ELSEWHERE]
        )
    assert (await told(worker.db))[event_id] == {THERE, ELSEWHERE}
    async with worker.db.connection() as conn:
        events, _ = await list_outgoing(conn, SERVER, since=0, upto=await stream_bound(conn), limit=1000)
        # The members have become known just now: the state that was read before has only some of them.
        await conn.execute("DELETE FROM partial_rooms")
        found = await new_room_servers().destinations(conn, events)
    assert found[max(found)] == {THERE, ELSEWHERE}


async def test_no_server_is_missed_while_a_room_is_completed(worker: Worker, database_url: str) -> None:
    """The list of servers goes, and the members come, between the statements that read them."""
    room_id = await room_with(worker, CAROL)
    other = await asyncpg.connect(database_url)

    async def current() -> frozenset[ServerName]:
        async with worker.db.connection() as conn:
            (servers,) = (await new_room_servers().current(conn, [room_nid])).values()
        return servers

    async def is_held_up() -> bool:
        waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'partial_rooms'::regclass AND NOT granted)"
        return bool(await other.fetchval(waiting))

    try:
        room_nid = await other.fetchval(
            "INSERT INTO partial_rooms (room_nid, join_nid, servers) SELECT room_nid, 1, $1 FROM rooms "
            "RETURNING room_nid",
            [ELSEWHERE],
        )
        assert await current() == {THERE, ELSEWHERE}
        async with asyncio.TaskGroup() as group, other.transaction():
            await other.execute("LOCK TABLE partial_rooms IN ACCESS EXCLUSIVE MODE")
            reading = group.create_task(current())
            await wait_until(is_held_up)
            await add(worker, room_id, member(EVE, "join"))
            await other.execute("DELETE FROM partial_rooms")
        assert reading.result() == {THERE, ELSEWHERE}
    finally:
        await other.close()


async def test_what_is_remembered_follows_every_change(worker: Worker) -> None:
    """The same object, asked after each change, says the same as one that is asked for the first time."""
    room_id = await room_with(worker, CAROL)
    remembering = new_room_servers()
    users = [UserId(f"@u{n}:s{n % 3}.example") for n in range(12)]
    changes = [member(user, "join") for user in users]
    changes += [member(user, "leave") for user in users[::2]]
    changes += [member(user, "ban", sender=ALICE) for user in users[1::4]]
    for change in changes:
        await add(worker, room_id, change)
        await say(worker, room_id, "hello")
        assert await told(worker.db, remembering) == await told(worker.db)


async def test_batches_lose_and_repeat_nothing(worker: Worker) -> None:
    room_id = await room_with(worker, CAROL)
    await say(worker, room_id, *map(str, range(7)))
    await worker.add(room_id, *(message(f"together {n}") for n in range(5)))
    whole = await told(worker.db)
    assert len(whole) == 12
    assert [await told(worker.db, limit=limit) for limit in (1, 2, 3)] == [whole] * 3
