"""Other servers that record what they are sent, and a worker that sends to them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import orjson

from federation.outbound import sender
from federation.outbound.backoff import Destinations
from federation.outbound.delivery import Delivery
from federation.outbound.edu_audience import EduAudience
from federation.outbound.edu_feed import EduFeed
from federation.outbound.pending_edus import PendingEdus
from federation.outbound.queue import DestinationQueues
from federation.outbound.room_servers import RoomServers
from federation.outbound.sender import Sender
from federation.outbound.shares import SHARES, Shares
from federation.outbound.transactions import Transactions
from federation.wire.allowed_servers import AllowedServers
from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import RemoteRefused, RemoteUnavailable
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.services.rooms.drafts import Draft
from homeserver.services.stream.follower import Follower
from homeserver.services.stream.hub import Hub, StreamKeys
from storage.bus.memory import MemoryBus
from storage.database import Database
from storage.events import EventCache
from storage.presence import SELECT_PRESENCE_KEYS
from storage.state import StateStore
from tests.fast_clock import FastClock
from tests.rooms.workers import ALICE, SERVER, Worker, member, message
from tests.waiting import wait_until

THERE = ServerName("there.example")
ELSEWHERE = ServerName("elsewhere.example")
CAROL = UserId("@carol:there.example")
CLAUDE = UserId("@claude:there.example")
EVE = UserId("@eve:elsewhere.example")


@dataclass(frozen=True)
class Received:
    """A transaction as a server got it."""

    transaction_id: str
    body: dict[str, Any]

    @property
    def pdus(self) -> list[dict[str, Any]]:
        """The events in it."""
        return list(self.body["pdus"])

    @property
    def edus(self) -> list[dict[str, Any]]:
        """The EDUs in it."""
        return list(self.body["edus"])


def refuses(status: int, errcode: str = "M_UNKNOWN") -> Callable[[Received], Any]:
    """An answer that refuses everything."""

    def refuse(_: Received) -> Any:
        raise RemoteRefused("No", remote_errcode=errcode, status=status)

    return refuse


def is_away(_: Received) -> Any:
    """The answer of a server that is not there."""
    raise RemoteUnavailable("Not there")


def accepts(received: Received) -> Any:
    """The answer of a server that takes everything."""
    return {"pdus": {}}


@dataclass
class OtherServers:
    """Stands in for `FederationClient`: hands transactions to servers that answer as a test has planned.

    Like the client it tells the back-off how it went, and asks nothing of a server that is left alone.
    """

    destinations: Destinations
    answers: dict[ServerName, Callable[[Received], Any]] = field(default_factory=dict)
    received: dict[ServerName, list[Received]] = field(default_factory=dict)
    attempts: dict[ServerName, list[Received]] = field(default_factory=dict)
    blocked: dict[ServerName, asyncio.Event] = field(default_factory=dict)
    # What they have taken is not answered before the event is set.
    silent: dict[ServerName, asyncio.Event] = field(default_factory=dict)
    in_flight: set[ServerName] = field(default_factory=set)

    async def put(
        self, destination: ServerName, path: str, body: bytes, *, timeout_seconds: float = 30, bytes_max: int = 0
    ) -> Any:
        """Takes a transaction."""
        if not await self.destinations.is_due(destination):
            raise RemoteUnavailable("Left alone")
        prefix = "/_matrix/federation/v1/send/"
        assert path.startswith(prefix)
        json = orjson.loads(body)
        assert encode_canonical(json) == body, "what is signed is canonical"
        assert len(json["pdus"]) <= 50
        assert len(json["edus"]) <= 100
        assert json["origin"] == SERVER
        received = Received(unquote(path.removeprefix(prefix)), json)
        assert destination not in self.in_flight, "one transaction at a time"
        self.in_flight.add(destination)
        try:
            self.attempts.setdefault(destination, []).append(received)
            if destination in self.blocked:
                await self.blocked[destination].wait()
            answer = self.answers.get(destination, accepts)(received)
            # Who has taken a transaction of this id answers the same again and does nothing.
            already = self.received.setdefault(destination, [])
            if received.transaction_id not in {each.transaction_id for each in already}:
                already.append(received)
            if destination in self.silent:
                await self.silent[destination].wait()
        except RemoteUnavailable:
            await self.destinations.failed(destination)
            raise
        finally:
            self.in_flight.discard(destination)
        await self.destinations.succeeded(destination)
        return answer

    def bodies(self, destination: ServerName) -> list[str]:
        """The texts of the messages that a server has got, in their order."""
        return [
            pdu["content"]["body"]
            for received in self.received.get(destination, [])
            for pdu in received.pdus
            if pdu["type"] == "m.room.message"
        ]

    def edus(self, destination: ServerName, edu_type: str) -> list[dict[str, Any]]:
        """The contents of the EDUs of a type that a server has got."""
        return [
            edu["content"]
            for received in self.received.get(destination, [])
            for edu in received.edus
            if edu["edu_type"] == edu_type
        ]


@dataclass
class Sending:
    """A worker that sends."""

    db: Database
    bus: MemoryBus
    clock: FastClock
    destinations: Destinations
    servers: OtherServers
    shares: Shares
    pending: PendingEdus
    feed: EduFeed
    queues: DestinationQueues
    tasks: list[Callable[[], Any]]


def make_sending(
    db: Database,
    bus: MemoryBus,
    *,
    servers: OtherServers | None = None,
    allowed: Sequence[str] | None = None,
    presence_enabled: bool = True,
    speed: float = 50.0,
    clock: FastClock | None = None,
) -> Sending:
    """Builds a worker; `servers` and the clock are shared with another one, if they are given."""
    clock = clock or FastClock(speed)
    destinations = Destinations(db=db, clock=clock)
    servers = servers or OtherServers(destinations)
    # Nothing but the tick wakes anybody for presence.
    hub = Hub(db=db, bus=bus, clock=clock, streams=[StreamKeys("presence", SELECT_PRESENCE_KEYS)])
    allowed_servers = AllowedServers(allowed=allowed, denied=())
    room_servers = RoomServers(server_name=SERVER, states=StateStore(), events=EventCache())
    follower = Follower(
        name=sender.NAME,
        keys=sender.KEYS,
        consumer=Sender(server_name=SERVER, db=db, bus=bus, room_servers=room_servers, allowed=allowed_servers),
        db=db,
        hub=hub,
        clock=clock,
        from_beginning=True,
        gather_seconds=sender.GATHER_SECONDS,
    )
    shares, pending = Shares(db=db, clock=clock), PendingEdus(clock=clock)
    audience = EduAudience(server_name=SERVER, room_servers=room_servers, allowed=allowed_servers)
    feed = EduFeed(
        server_name=SERVER,
        db=db,
        hub=hub,
        clock=clock,
        shares=shares,
        pending=pending,
        audience=audience,
        presence_enabled=presence_enabled,
    )
    delivery = Delivery(
        server_name=SERVER,
        clock=clock,
        client=servers,
        destinations=destinations,
        transactions=Transactions(db=db, clock=clock),
        pending=pending,
    )
    queues = DestinationQueues(
        db=db,
        bus=bus,
        clock=clock,
        destinations=destinations,
        shares=shares,
        delivery=delivery,
        pending=pending,
        feed=feed,
    )
    tasks = [hub.run, destinations.run, shares.run, feed.run, queues.run, follower.run]
    return Sending(db, bus, clock, destinations, servers, shares, pending, feed, queues, tasks)


@asynccontextmanager
async def running(sending: Sending) -> AsyncIterator[Sending]:
    """Runs a worker; at the end it stops as a server does that is told to."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run()) for run in sending.tasks]
        yield sending
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def feeding(sending: Sending) -> AsyncIterator[Sending]:
    """Runs a worker, and goes on once it follows what passes: what happens from then on is told."""
    async with running(sending):
        await wait_until(lambda: len(sending.shares.held) == SHARES and sending.feed.is_ready)
        yield sending


def joined(*users: UserId) -> list[Draft]:
    """Joins of users."""
    return [member(user, "join") for user in users]


async def room_with(worker: Worker, *users: UserId) -> RoomId:
    """A room of Alice that others have joined."""
    return await worker.create_room(*joined(*users))


async def say(worker: Worker, room_id: RoomId, *bodies: str, sender: UserId = ALICE) -> list[EventId]:
    """Sends messages, one after the other."""
    sent = []
    for body in bodies:
        added = await worker.add(room_id, message(body, sender=sender))
        sent += [pdu.event_id for pdu in added.events]
    return sent


async def has_received(sending: Sending, destination: ServerName, bodies: Sequence[str]) -> None:
    """Waits until a server has just these messages, in this order."""

    def complete() -> bool:
        got = sending.servers.bodies(destination)
        assert got == list(bodies)[: len(got)], f"{got} is no beginning of {list(bodies)}"
        return len(got) == len(bodies)

    await wait_until(complete)
