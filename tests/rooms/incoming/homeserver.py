"""This server as far as it takes events of others, on a worker, together with a server that sends them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.services.no_remotes import NoPolicyServers
from homeserver.services.remote import PolicyServers
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.append_line import LineAppender
from homeserver.services.rooms.append_remote import RemoteAppender
from homeserver.services.rooms.drafts import Draft
from homeserver.services.rooms.gate import EventGate
from homeserver.services.rooms.graph_ends import GraphEnds
from homeserver.services.rooms.incoming import IncomingEvents
from homeserver.services.rooms.joins_under_way import JoinsUnderWay
from homeserver.services.rooms.lanes import Lanes
from homeserver.services.rooms.missing_events import MissingEvents
from homeserver.services.rooms.outliers import Outliers
from homeserver.services.rooms.placing import EventPlacing
from homeserver.services.rooms.policy_servers import PolicyReview
from homeserver.services.rooms.postponed import PostponedEvents
from homeserver.services.rooms.resolution import StateResolver
from homeserver.services.rooms.server_access import ServerAccess
from homeserver.services.rooms.state_fetch import StateFetch
from homeserver.services.rooms.taking import EventTaking
from storage.events import StoredEvent, find_event, list_events, list_pdus
from storage.rooms import RoomRow, get_room
from storage.state import StateStore
from tests.rooms.incoming.remote_room import ByServer, KnownKeys, RemoteRoom, key_of
from tests.rooms.workers import ALICE, KEY, SERVER, Worker, power_levels

ELSEWHERE = ServerName("elsewhere.org")


@dataclass
class OutsideEvents:
    """Takes what comes of rooms that this server is not in; it satisfies `OutOfBandMembership`."""

    received: list[Pdu] = field(default_factory=list)

    async def receive(self, origin: ServerName, room: RoomRow, pdu: Pdu) -> None:
        self.received.append(pdu)


@dataclass
class Homeserver:
    """The services that take events, and who may be asked."""

    worker: Worker
    policy_servers: PolicyServers = field(default_factory=NoPolicyServers)
    keys: KnownKeys = field(default_factory=KnownKeys)
    remotes: ByServer = field(default_factory=ByServer)
    outside: OutsideEvents = field(default_factory=OutsideEvents)
    states: StateStore = field(default_factory=StateStore)
    incoming: IncomingEvents = field(init=False)
    outliers: Outliers = field(init=False)
    gate: EventGate = field(init=False)
    postponed: PostponedEvents = field(init=False)

    def __post_init__(self) -> None:
        worker, lanes = self.worker, Lanes()
        db, heads, push, bus = worker.db, worker.heads, worker.push, worker.bus
        self.keys.add(SERVER, KEY)
        policy = PolicyReview(db=db, servers=self.policy_servers)
        worker.appender = Appender(
            db=db,
            bus=bus,
            clock=worker.clock,
            server_name=SERVER,
            key=KEY,
            heads=heads,
            lanes=lanes,
            push=push,
            policy=policy,
        )
        resolver = StateResolver(states=self.states)
        self.gate = EventGate(keys=self.keys, clock=worker.clock)
        self.outliers = Outliers(db=db, states=self.states)
        remote_appender = RemoteAppender(
            db=db,
            bus=bus,
            clock=worker.clock,
            server_name=SERVER,
            heads=heads,
            lanes=lanes,
            states=self.states,
            resolver=resolver,
            push=push,
        )
        placing = EventPlacing(
            db=db,
            outliers=self.outliers,
            resolver=resolver,
            state_fetch=StateFetch(db=db, states=self.states, resolver=resolver, outliers=self.outliers),
            policy=policy,
            appender=remote_appender,
        )
        line = LineAppender(db=db, bus=bus, server_name=SERVER, heads=heads, lanes=lanes, push=push)
        missing = MissingEvents(db=db)
        self.postponed = PostponedEvents(db=db, clock=worker.clock)
        self.incoming = IncomingEvents(
            db=db,
            bus=bus,
            clock=worker.clock,
            server_name=SERVER,
            gate=self.gate,
            remote=self.remotes,
            access=ServerAccess(states=self.states),
            out_of_band=self.outside,
            taking=EventTaking(db=db, missing=missing, placing=placing, line=line, policy=policy),
            policy=policy,
            postponed=self.postponed,
            ends=GraphEnds(db=db, clock=worker.clock, appender=worker.appender, server_name=SERVER),
            arrivals=JoinsUnderWay(db=db, clock=worker.clock),
        )

    def meet(self, room_id: RoomId, room_version: RoomVersion, name: ServerName = ELSEWHERE) -> RemoteRoom:
        """Another server that may be asked about a room, of which it knows nothing yet."""
        remote = RemoteRoom(name, room_id, room_version)
        self.remotes.rooms[name] = remote
        self.keys.add(name, key_of(name))
        return remote

    async def tell(self, remote: RemoteRoom) -> None:
        """Shows another server all events of this one's users."""
        async with self.worker.db.connection() as conn:
            room = await get_room(conn, remote.room_id)
            rows = await conn.fetch(
                "SELECT event_nid FROM events WHERE room_nid = $1 AND NOT soft_failed ORDER BY event_nid", room.room_nid
            )
            pdus = await list_pdus(conn, [row["event_nid"] for row in rows])
        for nid in sorted(pdus):
            if pdus[nid].sender.server_name == SERVER:
                remote.server.receive(pdus[nid])

    async def push(self, remote: RemoteRoom, *events: Pdu) -> dict[EventId, str | None]:
        """Lets another server send events."""
        return dict(await self.incoming.receive(remote.name, remote.room_id, [pdu.json for pdu in events]))

    async def stored(self, pdu: Pdu) -> StoredEvent | None:
        async with self.worker.db.connection() as conn:
            return await find_event(conn, pdu.event_id)

    async def get(self, pdu: Pdu) -> StoredEvent:
        event = await self.stored(pdu)
        assert event is not None, f"{pdu.event_id} is not stored"
        return event

    async def ends(self, room_id: RoomId) -> set[EventId]:
        """The ends of a room's graph."""
        async with self.worker.db.connection() as conn:
            room = await get_room(conn, room_id)
            return {event.event_id for event in await list_events(conn, room.forward_extremities)}

    async def state(self, room_id: RoomId) -> dict[StateKey, EventId]:
        """The current state of a room."""
        async with self.worker.db.connection() as conn:
            rows = await conn.fetch(
                "SELECT event_nid FROM current_state JOIN rooms USING (room_nid) WHERE room_id = $1", room_id
            )
            events = await list_events(conn, [row["event_nid"] for row in rows])
        return {(event.type, event.state_key or ""): event.event_id for event in events}

    async def shown(self, room_id: RoomId) -> list[EventId]:
        """The events that clients are told of, in their order."""
        async with self.worker.db.connection() as conn:
            rows = await conn.fetch(
                "SELECT event_id FROM stored_events WHERE room_id = $1 AND position IS NOT NULL"
                " ORDER BY position, event_nid",
                room_id,
            )
        return [EventId(row["event_id"]) for row in rows]


async def room_with_another_server(
    homeserver: Homeserver, *, version: str = "12", levels: Sequence[tuple[str, int]] = (("dora", 50),)
) -> RemoteRoom:
    """A public room of Alice's that users of another server have joined, who have these levels."""
    room_version = ROOM_VERSIONS[version]
    worker = homeserver.worker
    room_id = await worker.create_room(room_version=room_version)
    remote = homeserver.meet(room_id, room_version)
    content = power_levels(ALICE, room_version)
    content["users"] = {**content.get("users", {}), **{remote.user(name): level for name, level in levels}}
    await worker.add(room_id, Draft(type="m.room.power_levels", sender=ALICE, state_key="", content=content))
    await homeserver.tell(remote)
    joins = [remote.join(remote.user(name)) for name, _ in levels]
    outcome = await homeserver.push(remote, *joins)
    assert set(outcome.values()) == {None}, outcome
    return remote
