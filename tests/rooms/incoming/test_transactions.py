"""Transactions: taken once, answered when all is committed, and no event hurts another (S2)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from federation.inbound.transactions import Transactions, section
from homeserver.core.edu import Edu
from homeserver.core.errors import BadJson, Forbidden, InvalidParam
from homeserver.core.ids import ServerName
from homeserver.services.rooms.received_sweep import ReceivedSweep
from homeserver.web.endpoint import Request
from tests.rooms.incoming.homeserver import ELSEWHERE, Homeserver, room_with_another_server


@dataclass
class Edus:
    """Takes EDUs and keeps them."""

    taken: list[Edu] = field(default_factory=list)

    async def receive(self, origin: ServerName, edus: Sequence[Edu]) -> None:
        self.taken += edus


@dataclass
class Inbox:
    """The endpoint, as another server sees it."""

    homeserver: Homeserver
    edus: Edus = field(default_factory=Edus)
    transactions: Transactions = field(init=False)

    def __post_init__(self) -> None:
        self.transactions = Transactions(
            db=self.homeserver.worker.db, incoming=self.homeserver.incoming, edus=self.edus
        )

    async def send(
        self, transaction_id: str = "1", *, origin: ServerName = ELSEWHERE, body: Any = None, **members: Any
    ) -> Any:
        endpoint = section(self.transactions).endpoints[0]
        request = Request(
            operation=endpoint.operation, path={"transaction_id": transaction_id}, body=body or members, origin=origin
        )
        return orjson.loads((await endpoint.function(request)).body)


@pytest.fixture
def inbox(homeserver: Homeserver) -> Inbox:
    return Inbox(homeserver)


async def test_events_of_several_rooms_are_taken(homeserver: Homeserver, inbox: Inbox) -> None:
    rooms = [await room_with_another_server(homeserver, version=version) for version in ("6", "12", "1")]
    said = []
    for room in rooms:
        homeserver.remotes.rooms[room.name] = room
        said += [room.say(str(number), sender=room.user("dora")) for number in range(3)]
    answer = await inbox.send(pdus=[pdu.json for pdu in said], edus=[])
    assert answer == {"pdus": {pdu.event_id: {} for pdu in said}}
    for pdu in said:
        assert (await homeserver.get(pdu)).position is not None


async def test_one_bad_event_hurts_no_other(homeserver: Homeserver, inbox: Inbox) -> None:
    """S2"""
    remote = await room_with_another_server(homeserver, version="1")
    dora = remote.user("dora")
    first, second = remote.say("first", sender=dora), remote.say("second", sender=dora)
    third = remote.say("third", sender=dora)
    nonsense: list[Any] = [
        None,
        "event",
        [],
        {},
        {"room_id": 5},
        {"room_id": "!nowhere:elsewhere.org", "event_id": "$unknown_room:elsewhere.org"},
        {"room_id": remote.room_id},
        {"room_id": remote.room_id, "event_id": "$malformed:elsewhere.org", "depth": 2**80},
        {**second.json, "event_id": "$unsigned:elsewhere.org", "signatures": {}},
        {**second.json, "event_id": "$bad\x00", "content": {"deep": [[[[[]]]]]}},
    ]
    answer = await inbox.send(pdus=[first.json, *nonsense[:5], second.json, *nonsense[5:], third.json])
    assert {event_id for event_id, result in answer["pdus"].items() if not result} == {
        pdu.event_id for pdu in (first, second, third)
    }
    assert {event_id for event_id, result in answer["pdus"].items() if result} == {
        "$unknown_room:elsewhere.org",
        "$malformed:elsewhere.org",
        "$unsigned:elsewhere.org",
    }
    assert (await homeserver.shown(remote.room_id))[-3:] == [first.event_id, second.event_id, third.event_id]


async def test_a_transaction_is_taken_once(homeserver: Homeserver, inbox: Inbox) -> None:
    remote = await room_with_another_server(homeserver)
    said = [remote.say(str(number), sender=remote.user("dora")) for number in range(2)]
    edu = {"edu_type": "m.typing", "content": {}}
    first = await inbox.send("a", pdus=[said[0].json], edus=[edu, 5, {"edu_type": "x"}])
    assert await inbox.send("a", pdus=[said[1].json], edus=[edu]) == first
    assert len(inbox.edus.taken) == 1
    assert await homeserver.stored(said[1]) is None
    assert await Inbox(homeserver).send("a", pdus=[]) == first
    assert await inbox.send("a", origin=ServerName("third.org"), pdus=[]) == {"pdus": {}}


async def test_the_same_transaction_at_the_same_time(homeserver: Homeserver, inbox: Inbox) -> None:
    remote = await room_with_another_server(homeserver)
    said = remote.say("once", sender=remote.user("dora"))
    async with asyncio.TaskGroup() as tasks:
        sent = [
            tasks.create_task(inbox.send("a", pdus=[said.json], edus=[{"edu_type": "m.typing", "content": {}}]))
            for _ in range(5)
        ]
    assert [task.result() for task in sent] == [{"pdus": {said.event_id: {}}}] * 5
    assert len(inbox.edus.taken) == 1


async def test_limits(inbox: Inbox) -> None:
    with pytest.raises(BadJson):
        await inbox.send(pdus=[{}] * 51)
    with pytest.raises(BadJson):
        await inbox.send(edus=[{}] * 101)
    with pytest.raises(InvalidParam):
        await inbox.send("x" * 300, pdus=[])
    with pytest.raises(InvalidParam):
        await inbox.send("\x00", pdus=[])
    with pytest.raises(Forbidden):
        await inbox.send(body={"origin": "other.org", "pdus": []})
    assert await inbox.send(pdus=[{}] * 50, edus=[{}] * 100) == {"pdus": {}}


async def test_what_was_received_is_forgotten_after_a_day(homeserver: Homeserver, inbox: Inbox) -> None:
    await inbox.send("old", pdus=[])
    await inbox.send("new", pdus=[])
    sweep = ReceivedSweep(db=homeserver.worker.db, clock=homeserver.worker.clock)
    async with homeserver.worker.db.connection() as conn:
        await conn.execute(
            "UPDATE received_transactions SET received_at = now() - interval '2 days' WHERE transaction_id = 'old'"
        )
        await conn.execute("INSERT INTO relayed_events (event_nid, added_at) VALUES (1, now() - interval '8 days')")
        await conn.execute("INSERT INTO relayed_events (event_nid) VALUES (2)")
    await sweep.sweep()
    async with homeserver.worker.db.connection() as conn:
        assert await conn.fetchval("SELECT transaction_id FROM received_transactions") == "new"
        assert await conn.fetchval("SELECT event_nid FROM relayed_events") == 2
