"""Telling other servers of changed devices: each that shares a room, in order, all of it, whatever happens.

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

import asyncio
from typing import Any

import orjson
import pytest

from federation.outbound.device_list_edus import WAITING_MAX
from federation.outbound.device_list_sender import UPDATES_PER_USER_MAX
from homeserver.core.ids import ServerName, UserId
from storage.destination_queues import NewEdu, insert_edus
from storage.destinations import note_success
from tests.federation.encryption.devices import Telling
from tests.federation.encryption.world import CAROL, ELSEWHERE, EVE, THERE
from tests.federation.sending.world import accepts, is_away, joined, make_sending, room_with
from tests.federation.sending.world import running as running_sending
from tests.rooms.workers import ALICE, BOB, SERVER, Worker, member
from tests.waiting import wait_until

UPDATE, KEYS = "m.device_list_update", "m.signing_key_update"


@pytest.fixture
async def telling(worker: Worker) -> Telling:
    """Nobody is in a room yet."""
    return Telling(worker)


async def queued(telling: Telling, destination: ServerName = THERE, *, kind: str = UPDATE) -> list[dict[str, Any]]:
    """The contents of the EDUs that wait for a server."""
    async with telling.db.connection() as conn:
        rows = await conn.fetch(
            "SELECT content FROM destination_edus WHERE destination = $1 AND edu_type = $2 ORDER BY edu_id",
            destination,
            kind,
        )
    return [orjson.loads(row["content"]) for row in rows]


async def untold(telling: Telling) -> int:
    async with telling.db.connection() as conn:
        return int(await conn.fetchval("SELECT count(*) FROM device_changes"))


async def lags(telling: Telling) -> set[str]:
    async with telling.db.connection() as conn:
        return {row["destination"] for row in await conn.fetch("SELECT destination FROM device_list_lags")}


async def test_each_change_is_told_to_those_who_share_a_room(telling: Telling) -> None:
    await room_with(telling.worker, CAROL)
    await telling.worker.create_room(*joined(EVE), creator=BOB)
    (first,) = await telling.upload("ONE", name="Phone")
    await telling.tell()
    (second,) = await telling.upload("TWO")
    await telling.tell()
    await telling.delete("ONE")
    await telling.tell()
    one, two, gone = await queued(telling)
    ids = [each["stream_id"] for each in (one, two, gone)]
    assert ids == sorted(set(ids))
    shown = {"user_id": ALICE, "device_id": "ONE", "keys": first, "device_display_name": "Phone"}
    assert one == {**shown, "stream_id": ids[0], "prev_id": []}
    assert two == {"user_id": ALICE, "device_id": "TWO", "keys": second, "stream_id": ids[1], "prev_id": ids[:1]}
    assert gone == {"user_id": ALICE, "device_id": "ONE", "deleted": True, "stream_id": ids[2], "prev_id": ids[1:2]}
    assert await queued(telling, ELSEWHERE) == []
    assert await untold(telling) == 0


async def test_changes_that_come_together_form_a_chain(telling: Telling) -> None:
    await room_with(telling.worker, CAROL)
    await telling.upload("ONE", "TWO", "THREE")
    newest = await telling.upload("ONE")
    await telling.tell()
    told = await queued(telling)
    assert [each["device_id"] for each in told] == ["TWO", "THREE", "ONE"]
    assert told[2]["keys"] == newest[0]
    assert [each["prev_id"] for each in told[1:]] == [[told[0]["stream_id"]], [told[1]["stream_id"]]]


async def test_cross_signing_keys_are_told_and_do_not_break_the_chain(telling: Telling) -> None:
    await room_with(telling.worker, CAROL)
    await telling.upload("ONE")
    await telling.tell()
    signer = await telling.sign_across()
    await telling.tell()
    await telling.upload("TWO")
    await telling.tell()
    (told,) = await queued(telling, kind=KEYS)
    master, self_signing = signer.key_json("master"), signer.key_json("self_signing")
    assert told == {"user_id": ALICE, "master_key": master, "self_signing_key": self_signing}, "no user-signing key"
    one, two = await queued(telling)
    assert two["prev_id"] == [one["stream_id"]]


async def test_of_very_many_changes_one_is_told_by_which_all_are_missed(telling: Telling) -> None:
    """A server that knew the list finds out that there is more than it is told."""
    await room_with(telling.worker, CAROL)
    await telling.upload("ONE")
    await telling.tell()
    (known,) = await queued(telling)
    await telling.upload(*(f"D{number}" for number in range(UPDATES_PER_USER_MAX + 5)))
    await telling.tell()
    _, told = await queued(telling)
    assert told["device_id"] == f"D{UPDATES_PER_USER_MAX + 4}"
    assert known["stream_id"] not in told["prev_id"]
    await telling.upload("LAST")
    await telling.tell()
    assert (await queued(telling))[2]["prev_id"] == [told["stream_id"]]


async def test_a_change_that_is_told_to_nobody_is_missed_later(telling: Telling) -> None:
    """A server with which no room was shared for a while cannot take what it knew for whole."""
    room_id = await room_with(telling.worker, CAROL)
    await telling.upload("ONE")
    await telling.tell()
    await telling.worker.add(room_id, member(CAROL, "leave"))
    await telling.upload("TWO")
    await telling.tell()
    await telling.worker.add(room_id, member(CAROL, "join"))
    await telling.upload("THREE")
    await telling.tell()
    one, three = await queued(telling)
    assert (one["device_id"], three["device_id"]) == ("ONE", "THREE")
    assert one["stream_id"] not in three["prev_id"]


async def test_servers_that_a_user_comes_to_are_told(telling: Telling) -> None:
    """What was told last is told again, to those who were told nothing so far."""
    await room_with(telling.worker, CAROL)
    await telling.upload("ONE")
    await telling.sign_across()
    await telling.tell()
    before = await queued(telling)
    crowd = await telling.worker.create_room(*joined(CAROL, EVE), creator=BOB)
    await telling.tell()
    assert await queued(telling, ELSEWHERE) == []
    await telling.worker.add(crowd, member(ALICE, "join"))
    await telling.tell()
    assert await queued(telling, ELSEWHERE) == before
    assert len(await queued(telling, ELSEWHERE, kind=KEYS)) == 1
    assert await queued(telling) == before, "this server knew"


async def test_many_servers_are_told_by_many_transactions(telling: Telling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.outbound.device_list_sender.ROWS_MAX", 5)
    servers = [ServerName(f"s{number}.example") for number in range(4)]
    users = [UserId(f"@u:{server}") for server in servers]
    room_id = await room_with(telling.worker, *users)
    await telling.worker.add(room_id, member(BOB, "join"))
    await telling.upload("ONE")
    await telling.upload("BOBS", user_id=BOB)
    await telling.tell()
    for server in servers:
        assert {each["user_id"] for each in await queued(telling, server)} == {ALICE, BOB}
    await telling.upload("TWO", "THREE")
    await telling.tell()
    for server in servers:
        assert [each["device_id"] for each in await queued(telling, server)][2:] == ["THREE"], "the last of too many"


async def test_two_workers_tell_it_once(telling: Telling) -> None:
    """Should both think that it is theirs to tell."""
    await room_with(telling.worker, CAROL)
    other = Telling(telling.worker)
    await telling.upload("ONE", "TWO")
    async with telling.db.connection() as conn:
        upto = int(await conn.fetchval("SELECT stream_bound()"))
    async with asyncio.TaskGroup() as tasks:
        for worker in (telling, other, telling, other):
            tasks.create_task(worker.sender._tell_changes(upto))
    assert [each["device_id"] for each in await queued(telling)] == ["ONE", "TWO"]


async def test_a_change_while_it_is_told_is_told_again(telling: Telling, monkeypatch: pytest.MonkeyPatch) -> None:
    await room_with(telling.worker, CAROL)
    await telling.upload("ONE")
    queries = telling.sender._queries
    read, newest = queries.local, list[Any]()

    async def change_meanwhile(*args: Any, **kwargs: Any) -> Any:
        found = await read(*args, **kwargs)
        if not newest:
            newest.extend(await telling.upload("ONE"))
        return found

    monkeypatch.setattr(queries, "local", change_meanwhile)
    await telling.tell()
    await telling.tell()
    assert (await queued(telling))[-1]["keys"] == newest[0]
    assert await untold(telling) == 0


# Servers that do not answer.


async def fail(telling: Telling, server: ServerName = THERE, *, retry_at_ts: int = 9_000_000_000_000) -> None:
    """Notes that a server does not answer."""
    async with telling.db.connection() as conn:
        await conn.execute(
            "INSERT INTO destinations (destination, failing_since_ts, retry_at_ts) VALUES ($1, 1, $2)"
            " ON CONFLICT (destination) DO UPDATE SET failing_since_ts = 1, retry_at_ts = $2",
            server,
            retry_at_ts,
        )


async def answer_again(telling: Telling, server: ServerName = THERE) -> None:
    async with telling.db.connection() as conn:
        await note_success(conn, server, now_ms=telling.clock.now_ms())


async def test_for_a_server_that_is_away_nothing_is_heaped_up(telling: Telling) -> None:
    await telling.worker.create_room(*joined(CAROL, EVE))
    await telling.upload("ONE")
    await telling.tell()
    await fail(telling)
    for device in ("TWO", "THREE", "FOUR"):
        await telling.upload(device)
        await telling.tell()
        await telling.recovery.look()
    assert len(await queued(telling)) == 1
    assert len(await queued(telling, ELSEWHERE)) == 4
    assert await lags(telling) == {THERE}
    await answer_again(telling)
    await telling.recovery.look()
    one, last = await queued(telling)
    assert last["device_id"] == "FOUR"
    assert one["stream_id"] not in last["prev_id"], "it will find out that it has missed some"
    assert await lags(telling) == set()
    await telling.upload("FIVE")
    await telling.tell()
    assert (await queued(telling))[-1]["prev_id"] == [last["stream_id"]]


async def test_a_server_that_may_be_tried_again_has_something_to_be_tried_with(telling: Telling) -> None:
    """Or nobody would ever find out that it is back."""
    await room_with(telling.worker, CAROL)
    await fail(telling)
    await telling.upload("ONE")
    await telling.tell()
    await telling.recovery.look()
    assert await queued(telling) == []
    await fail(telling, retry_at_ts=0)
    await telling.recovery.look()
    assert [each["device_id"] for each in await queued(telling)] == ["ONE"]
    await telling.upload("TWO")
    await telling.tell()
    await telling.recovery.look()
    assert len(await queued(telling)) == 1, "one is enough, as long as it does not answer"
    await answer_again(telling)
    await telling.recovery.look()
    assert [each["device_id"] for each in await queued(telling)] == ["ONE", "TWO"]


async def test_a_server_for_which_very_much_waits_is_told_later(telling: Telling) -> None:
    await room_with(telling.worker, CAROL)
    edus = [NewEdu(destination=THERE, edu_type="m.direct_to_device", content="{}")] * WAITING_MAX
    async with telling.db.transaction() as conn:
        await insert_edus(conn, edus, now_ms=0)
    await telling.upload("ONE")
    await telling.tell()
    await telling.recovery.look()
    assert await queued(telling) == []
    async with telling.db.connection() as conn:
        await conn.execute("DELETE FROM destination_edus")
    await telling.recovery.look()
    assert [each["device_id"] for each in await queued(telling)] == ["ONE"]


async def test_what_happens_while_a_server_is_told_is_not_lost(
    telling: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await room_with(telling.worker, CAROL)
    await fail(telling)
    await telling.upload("ONE")
    await telling.tell()
    await answer_again(telling)
    queries = telling.recovery._queries
    read = queries.local

    async def change_meanwhile(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(queries, "local", read)
        found = await read(*args, **kwargs)
        await telling.upload("TWO")
        await telling.tell()
        return found

    monkeypatch.setattr(queries, "local", change_meanwhile)
    await telling.recovery.look()
    await telling.recovery.look()
    assert [each["device_id"] for each in await queued(telling)] == ["TWO"]
    assert await lags(telling) == set()


async def test_of_very_many_users_a_server_is_told_in_parts(telling: Telling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.outbound.device_list_recovery.USERS_MAX", 2)
    room_id = await room_with(telling.worker, CAROL)
    await fail(telling)
    users = [UserId(f"@user{number}:{SERVER}") for number in range(4)]
    for user_id in users:
        await telling.worker.add(room_id, member(user_id, "join"))
        await telling.upload("ONE", user_id=user_id)
        await telling.tell()
    await answer_again(telling)
    for _ in range(5):
        await telling.recovery.look()
    assert {each["user_id"] for each in await queued(telling)} == set(users)
    assert await lags(telling) == set()


async def test_an_outage_from_one_end_to_the_other(telling: Telling, worker: Worker) -> None:
    """All that tells and sends, and a server that keeps a list, is away, and in the end knows all devices."""
    await room_with(worker, CAROL)
    sending = make_sending(worker.db, worker.bus, clock=telling.clock)
    server = sending.servers
    async with running_sending(sending), telling.running():
        await telling.upload("ONE")
        await wait_until(lambda: len(server.edus(THERE, UPDATE)) == 1)
        server.answers[THERE] = is_away
        await telling.upload("TWO", "THREE")
        await telling.delete("ONE")
        await wait_until(lambda: len(server.attempts.get(THERE, ())) >= 3)
        await telling.sign_across()
        await telling.upload("FOUR")
        await wait_until_told(telling)
        server.answers[THERE] = accepts
        await wait_until(lambda: bool([each for each in server.edus(THERE, UPDATE) if each["device_id"] == "FOUR"]))
        await wait_until(lambda: bool(server.edus(THERE, KEYS)))
    ids = [each["stream_id"] for each in server.edus(THERE, UPDATE)]
    assert ids == sorted(set(ids)), "in order, and each once"
    follows = [each["prev_id"] == ids[number - 1 : number] for number, each in enumerate(server.edus(THERE, UPDATE))]
    complete = {each["device_id"] for each in server.edus(THERE, UPDATE)} >= {"ONE", "TWO", "THREE", "FOUR"}
    assert complete or not all(follows), "what it was not told it must find out"


async def wait_until_told(telling: Telling) -> None:
    async def holds() -> bool:
        return await untold(telling) == 0

    await wait_until(holds)


async def test_what_is_told_is_what_is_there(telling: Telling) -> None:
    """Whoever applies the updates one after the other has the list."""
    await room_with(telling.worker, CAROL)
    await telling.upload("ONE")
    await telling.tell()
    await telling.upload("TWO", "THREE")
    await telling.upload("ONE")
    await telling.delete("TWO")
    await telling.tell()
    known: dict[str, Any] = {}
    for update in await queued(telling):
        known[update["device_id"]] = update.get("keys")
    found = await telling.sender._queries.local({ALICE: []}, seen_by=None)
    assert {device_id: keys for device_id, keys in known.items() if keys is not None} == found.device_keys[ALICE]
    assert set(found.device_keys[ALICE]) == {"ONE", "THREE"}
