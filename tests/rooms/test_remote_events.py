"""Events of another server: they take their place in the graph, and all ends of it decide about the state."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from homeserver.core.event_auth.auth_events import auth_event_slots
from homeserver.core.event_builder import EventBuilder
from homeserver.core.hashing import reference_hash
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.signing import SigningKey
from homeserver.core.unpadded_base64 import encode_base64
from homeserver.services.rooms.append_remote import RemoteAppender
from homeserver.services.rooms.drafts import AddedEvents, Draft
from homeserver.services.rooms.lanes import Lanes
from homeserver.services.rooms.remote_event import RemoteEvent
from homeserver.services.rooms.resolution import StateResolver
from storage.events import find_event_nids, list_events, list_pdus
from storage.rooms import get_room
from storage.state import StateStore
from tests.rooms.consistency import check_consistent
from tests.rooms.workers import ALICE, BOB, SERVER, NoPush, Worker, member, message, power_levels

ELSEWHERE = ServerName("elsewhere.org")
DORA = UserId("@dora:elsewhere.org")
KEY = SigningKey.from_seed("b_test", bytes(range(32)))


@dataclass
class OtherServer:
    """Another server in a room, which sees of it what it is shown."""

    worker: Worker
    room_id: RoomId
    room_version: RoomVersion
    states: StateStore = field(default_factory=StateStore)
    remote: RemoteAppender = field(init=False)
    resolver: StateResolver = field(init=False)

    def __post_init__(self) -> None:
        self.resolver = StateResolver(states=self.states)
        self.remote = RemoteAppender(
            db=self.worker.db,
            bus=self.worker.bus,
            clock=self.worker.clock,
            server_name=SERVER,
            heads=self.worker.heads,
            lanes=Lanes(),
            states=self.states,
            resolver=self.resolver,
            push=NoPush(),
        )

    async def heads(self) -> list[EventId]:
        """The present ends of the graph."""
        async with self.worker.db.connection() as conn:
            room = await get_room(conn, self.room_id)
            return [event.event_id for event in await list_events(conn, room.forward_extremities)]

    async def send(
        self,
        event_type: str,
        content: Mapping[str, Any],
        *,
        after: Sequence[EventId],
        state_key: str | None = None,
        sender: UserId = DORA,
        **judged: Any,
    ) -> AddedEvents:
        """Makes an event that follows some others, and has it added."""
        async with self.worker.db.connection() as conn:
            nids = await find_event_nids(conn, after)
            before = await self.resolver.state_before(conn, self.room_version, list(nids.values()))
            entries = before.on((await self.states.load(conn, before.base_state_id)).entries())
            pdus = {pdu.state_slot: pdu for pdu in (await list_pdus(conn, entries.values())).values()}
            prev_events = list((await list_pdus(conn, nids.values())).values())
        pdu = self._make(event_type, content, state_key=state_key, sender=sender, prev_events=prev_events, state=pdus)
        return await self.remote.append(RemoteEvent(pdu=pdu, state_before=before, **judged))

    def _make(
        self,
        event_type: str,
        content: Mapping[str, Any],
        *,
        state_key: str | None,
        sender: UserId,
        prev_events: Sequence[Pdu],
        state: Mapping[StateKey | None, Pdu],
    ) -> Pdu:
        slots = auth_event_slots(
            event_type=event_type,
            sender=sender,
            state_key=state_key,
            content=content,
            room_version=self.room_version,
        )
        auth_events = [state[slot] for slot in slots if slot in state]
        hashes = {
            pdu.event_id: encode_base64(reference_hash(pdu.json, self.room_version))
            for pdu in (*prev_events, *auth_events)
        }
        return EventBuilder(
            room_version=self.room_version,
            room_id=self.room_id,
            type=event_type,
            sender=sender,
            content=content,
            origin_server_ts=self.worker.clock.now_ms(),
            depth=max(pdu.depth for pdu in prev_events) + 1,
            prev_events=[pdu.event_id for pdu in prev_events],
            auth_events=[pdu.event_id for pdu in auth_events],
            state_key=state_key,
            reference_hashes=hashes,
        ).build(server_name=ELSEWHERE, key=KEY)


async def _room(worker: Worker, version: str) -> OtherServer:
    """A room in which Alice and Dora may do everything that a moderator may."""
    room_version = ROOM_VERSIONS[version]
    room_id = await worker.create_room(room_version=room_version)
    other = OtherServer(worker, room_id, room_version)
    await other.send("m.room.member", {"membership": "join"}, after=await other.heads(), state_key=DORA)
    levels = power_levels(ALICE, room_version)
    levels["users"] = {**levels.get("users", {}), DORA: 50}
    await worker.add(room_id, Draft(type="m.room.power_levels", sender=ALICE, state_key="", content=levels))
    return other


async def _state(other: OtherServer) -> dict[StateKey, Pdu]:
    async with other.worker.db.connection() as conn:
        rows = await conn.fetch(
            "SELECT event_nid FROM current_state JOIN rooms USING (room_nid) WHERE room_id = $1", other.room_id
        )
        pdus = await list_pdus(conn, [row["event_nid"] for row in rows])
    return {pdu.state_slot: pdu for pdu in pdus.values() if pdu.state_slot is not None}


VERSIONS = ("1", "2", "6", "11", "12")


@pytest.mark.parametrize("version", VERSIONS)
async def test_remote_events_in_line(worker: Worker, version: str) -> None:
    other = await _room(worker, version)
    await other.send("m.room.message", {"body": "hello"}, after=await other.heads())
    await worker.add(other.room_id, message("hello too"))
    await other.send("m.room.name", {"name": "Dora's"}, after=await other.heads(), state_key="")
    await worker.add(other.room_id, message("nice name"))
    state = await _state(other)
    assert state[("m.room.name", "")].content == {"name": "Dora's"}
    assert state[("m.room.member", DORA)].content == {"membership": "join"}
    async with worker.db.connection() as conn:
        row = await conn.fetchrow("SELECT * FROM room_summaries")
    assert row is not None
    assert (row["name"], row["joined_members"], row["local_joined_members"]) == ("Dora's", 2, 1)
    await check_consistent(worker.db, other.room_id)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_ban_that_was_not_seen_wins_over_what_the_banned_did(worker: Worker, version: str) -> None:
    """Dora sets the topic beside the event by which Alice takes her power and bans her."""
    other = await _room(worker, version)
    fork = await other.heads()
    await worker.add(other.room_id, member(DORA, "ban", sender=ALICE))
    await other.send("m.room.topic", {"topic": "Dora's"}, after=fork, state_key="")
    state = await _state(other)
    assert state[("m.room.member", DORA)].membership == "ban"
    assert ("m.room.topic", "") not in state or version == "1"
    assert len(await other.heads()) == 2
    await check_consistent(worker.db, other.room_id)
    await worker.add(other.room_id, message("both ends"))
    assert len(await other.heads()) == 1
    await check_consistent(worker.db, other.room_id)


async def test_a_local_change_may_lose_to_a_remote_one(worker: Worker) -> None:
    """What stands at the fork is resolved by the rules, not by who came first here."""
    other = await _room(worker, "11")
    fork = await other.heads()
    await worker.add(other.room_id, Draft(type="m.room.name", sender=ALICE, state_key="", content={"name": "Alice's"}))
    await other.send("m.room.name", {"name": "Dora's"}, after=fork, state_key="")
    assert (await _state(other))[("m.room.name", "")].content == {"name": "Dora's"}
    async with worker.db.connection() as conn:
        assert await conn.fetchval("SELECT name FROM room_summaries") == "Dora's"
        history = await conn.fetch("SELECT state_id FROM state_history ORDER BY position, serial")
        assert len({row["state_id"] for row in history}) == len(history)
    await check_consistent(worker.db, other.room_id)


async def test_rejected_and_soft_failed_events_are_kept_but_change_nothing(worker: Worker) -> None:
    other = await _room(worker, "11")
    heads, state = await other.heads(), await _state(other)
    for judged in ({"rejected": "no power"}, {"soft_failed": True}):
        added = await other.send("m.room.name", {"name": "no"}, after=heads, state_key="", **judged)
        async with worker.db.connection() as conn:
            event = (await list_events(conn, added.event_nids))[0]
        assert (event.position, event.topological) == (None, None)
        assert event.state_id is not None
        assert not event.is_accepted
    assert await other.heads() == heads
    assert await _state(other) == state
    await worker.add(other.room_id, message("goes on"))
    await check_consistent(worker.db, other.room_id)


async def test_a_remote_member_may_come_from_a_fork(worker: Worker) -> None:
    other = await _room(worker, "12")
    fork = await other.heads()
    await worker.add(other.room_id, member(BOB, "join"))
    eve = UserId("@eve:elsewhere.org")
    await other.send("m.room.member", {"membership": "join"}, after=fork, state_key=eve, sender=eve)
    async with worker.db.connection() as conn:
        rows = await conn.fetch("SELECT user_id FROM memberships WHERE membership = 'join' ORDER BY user_id")
        row = await conn.fetchrow("SELECT * FROM room_summaries")
    assert [row["user_id"] for row in rows] == [ALICE, BOB, DORA, eve]
    assert row is not None
    assert (row["joined_members"], row["local_joined_members"]) == (4, 2)
    await check_consistent(worker.db, other.room_id)


@pytest.mark.parametrize("seed", range(4))
async def test_random_forks_stay_consistent(worker: Worker, seed: int) -> None:
    """Local and remote events on random old ends; whatever comes of it, all that is stored says the same."""
    rng = random.Random(seed)
    other = await _room(worker, rng.choice(VERSIONS))
    ends = [await other.heads()]
    for number in range(25):
        kind = rng.randrange(5)
        after = rng.choice(ends[-4:])
        if kind == 0:
            await worker.add(other.room_id, message(str(number)))
        elif kind == 1:
            draft = Draft(type="m.room.name", sender=ALICE, state_key="", content={"name": str(number)})
            await worker.add(other.room_id, draft)
        elif kind == 2:
            await other.send("m.room.message", {"body": str(number)}, after=after)
        elif kind == 3:
            await other.send("m.room.name", {"name": str(number)}, after=after, state_key="")
        else:
            await other.send("org.example.any", {"n": number}, after=after, state_key=rng.choice("ab"))
        ends.append(await other.heads())
        await check_consistent(worker.db, other.room_id)
