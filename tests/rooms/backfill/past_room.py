"""A server in a room that has a past, by value, and what a server of ours makes of that past."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal
from urllib.parse import quote

from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu, StateMap
from homeserver.services.remote import EventJson
from storage.database import Database
from storage.events import StoredEvent, list_event_ids, list_pdus, stored_event
from storage.state import StateStore
from tests.api.server import Client, Site
from tests.federation.peer_room import PeerRoom
from tests.rooms.remote_membership.resident import DORA, EMIL, RESIDENT, Resident, join, open_room, refused

LONG_AGO_MS = 1_600_000_000_000
_numbers = count(1)


@dataclass(kw_only=True)
class PastRoom(Resident):
    """The server.

    Attributes:
        withheld: events that it does not give to others.
        lies: what it gives in the answers to `/backfill` beside what is right.
        times: what it answers to `/timestamp_to_event`.
        backfills: what it was asked for by `/backfill`, and of how many events.
    """

    withheld: set[EventId] = field(default_factory=set)
    lies: list[EventJson] = field(default_factory=list)
    times: dict[str, Pdu] = field(default_factory=dict)
    backfills: list[tuple[Sequence[EventId], int]] = field(default_factory=list)

    async def backfill(
        self, via: ServerName, room_id: RoomId, event_ids: Collection[EventId], *, limit: int
    ) -> Sequence[EventJson]:
        self._asked(via, "backfill")
        self.backfills.append((list(event_ids), limit))
        found = self.room.backfill(event_ids, limit)
        return [*self.lies, *(pdu.json for pdu in found if pdu.event_id not in self.withheld)]

    async def event(self, via: ServerName, event_id: EventId) -> EventJson:
        if event_id in self.withheld or event_id not in self.room.events:
            raise refused("M_NOT_FOUND", 404)
        return await super().event(via, event_id)

    async def timestamp_to_event(
        self, via: ServerName, room_id: RoomId, *, ts: int, direction: Literal["f", "b"]
    ) -> tuple[EventId, int]:
        self._asked(via, "timestamp_to_event")
        if direction not in self.times:
            raise refused("M_NOT_FOUND", 404)
        return self.times[direction].event_id, self.times[direction].origin_server_ts

    @property
    def history(self) -> list[Pdu]:
        """The events of its room that are accepted, in the order in which it has judged them."""
        return [pdu for pdu in self.room.events.values() if pdu.event_id not in self.room.rejected]


def past_room(version: str = "11", **options: Any) -> PastRoom:
    """A room of Dora's that Emil has joined too."""
    room = open_room(version, **options).room
    join(room, EMIL)
    return PastRoom(room=room)


def talk(room: PeerRoom, number: int, *, sender: UserId = EMIL, **content: Any) -> list[Pdu]:
    """So many messages of long ago, each a second after the one before."""
    start = len(room.events)
    return [
        room.send(
            sender,
            "m.room.message",
            {"body": f"line {start + each}", "msgtype": "m.text", **content},
            now=LONG_AGO_MS + 1000 * (start + each),
        )
        for each in range(number)
    ]


def bodies(events: Sequence[Any]) -> list[str]:
    """The texts of messages."""
    return [event["content"]["body"] for event in events if "body" in event["content"]]


def ids(events: Sequence[Any]) -> list[str]:
    """The ids of events."""
    return [event["event_id"] if isinstance(event, dict) else event.event_id for event in events]


async def enter(client: Client, room_id: str) -> None:
    """Joins a room of the other server."""
    reply = await client.call("POST", f"/join/{quote(room_id)}", {}, via=[RESIDENT])
    assert reply.status == 200, reply.body


async def read_back(
    client: Client, room_id: str, *, limit: int = 100, pages_max: int = 50, **query: Any
) -> list[dict[str, Any]]:
    """All that a client sees on its way back, oldest first, as clients go: until there is no `end`, or no other one."""
    events: list[dict[str, Any]] = []
    for _ in range(pages_max):
        page = await client.get(f"/rooms/{quote(room_id)}/messages", dir="b", limit=limit, **query)
        events += page["chunk"]
        if page.get("end") in (None, page["start"]):
            return events[::-1]
        query["from"] = page["end"]
    raise AssertionError(f"there is no end after {pages_max} pages")


async def push(site: Site, *events: Pdu, origin: ServerName = RESIDENT) -> dict[str, Any]:
    """Lets the other server send events."""
    body = {"origin": origin, "origin_server_ts": 1, "pdus": [pdu.json for pdu in events]}
    reply = await site.ask_as(origin, "PUT", f"/_matrix/federation/v1/send/{next(_numbers)}", body)
    assert reply.status == 200, reply.body
    outcome: dict[str, Any] = reply.json["pdus"]
    return outcome


async def tell(db: Database, room: PeerRoom) -> None:
    """Shows the other server all events of ours in its room."""
    async with db.connection() as conn:
        rows = await conn.fetch("SELECT event_nid FROM events WHERE sender LIKE '%:test' ORDER BY event_nid")
        pdus = await list_pdus(conn, [row["event_nid"] for row in rows])
    for event_nid in sorted(pdus):
        if pdus[event_nid].room_id == room.room_id:
            room.receive(pdus[event_nid])


async def stored_events(db: Database) -> dict[EventId, StoredEvent]:
    """All events that our server has."""
    async with db.connection() as conn:
        rows = await conn.fetch("SELECT * FROM stored_events ORDER BY event_nid")
    return {event.event_id: event for event in map(stored_event, rows)}


async def missing(db: Database) -> set[str]:
    """The events that our server misses."""
    async with db.connection() as conn:
        return {row["event_id"] for row in await conn.fetch("SELECT event_id FROM missing_events")}


async def ask_again(db: Database) -> None:
    """Lets the time pass for which nobody is asked for what nobody had."""
    async with db.connection() as conn:
        await conn.execute("UPDATE missing_events SET retry_at = now()")


async def state_of(db: Database, event: StoredEvent) -> StateMap:
    """The state before an event as our server has it."""
    assert event.state_id is not None, f"{event.event_id} is not in the graph"
    states = StateStore()
    async with db.connection() as conn:
        entries = (await states.load(conn, event.state_id)).entries()
        slots = await states.slot_names(conn, entries)
        event_ids = await list_event_ids(conn, entries.values())
    return {slots[slot_id]: event_ids[event_nid] for slot_id, event_nid in entries.items()}


async def check_history(db: Database, resident: PastRoom, events: Sequence[Pdu]) -> None:
    """Events have a place in the history of our server, in the order of the graph, and with the states they must have.

    And nothing of the past is in the stream, or counts as unread.
    """
    stored = await stored_events(db)
    assert {pdu.event_id for pdu in events} <= stored.keys()
    for pdu in events:
        own = stored[pdu.event_id]
        assert own.topological is not None, f"{pdu} has no place"
        assert own.rejected is None
        for prev_id in pdu.prev_events:
            prev = stored.get(prev_id)
            if prev is not None and prev.topological is not None and prev.position is None:
                assert (prev.topological, prev.event_nid) < (own.topological, own.event_nid)
        assert await state_of(db, own) == resident.room.states_before[pdu.event_id]
    places = [(event.topological, event.event_nid) for event in stored.values() if event.topological is not None]
    assert len(places) == len(set(places))
    async with db.connection() as conn:
        assert not await conn.fetchval(
            "SELECT count(*) FROM events WHERE position IS NULL AND push_actions_id IS NOT NULL"
        )
        edges = await conn.fetch(
            "SELECT e.event_id, array_agg(p.event_id) AS prevs FROM events e JOIN events p ON p.event_nid ="
            " ANY (e.prev_event_nids) GROUP BY e.event_id"
        )
    for row in edges:
        assert set(row["prevs"]) <= set(resident.room.events[EventId(row["event_id"])].prev_events)
    known = {row["event_id"]: set(row["prevs"]) for row in edges}
    for pdu in events:
        assert known.get(pdu.event_id, set()) == set(pdu.prev_events) & stored.keys()


__all__ = ["DORA", "EMIL", "RESIDENT"]
