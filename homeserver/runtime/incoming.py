"""Builds what takes events of other servers in, whichever way they come."""

from dataclasses import dataclass

from homeserver.runtime.accounts import Means
from homeserver.runtime.other_servers import Remotes
from homeserver.runtime.room_writing import RoomWriting
from homeserver.services.rooms.append_line import LineAppender
from homeserver.services.rooms.drafts import PushEvaluator
from homeserver.services.rooms.gate import EventGate
from homeserver.services.rooms.graph_ends import GraphEnds
from homeserver.services.rooms.incoming import IncomingEvents
from homeserver.services.rooms.joins_under_way import JoinsUnderWay
from homeserver.services.rooms.missing_events import MissingEvents
from homeserver.services.rooms.out_of_band import OutOfBandMemberships
from homeserver.services.rooms.outliers import Outliers
from homeserver.services.rooms.placing import EventPlacing
from homeserver.services.rooms.postponed import PostponedEvents
from homeserver.services.rooms.rescinded_invites import RescindedInvites
from homeserver.services.rooms.server_access import ServerAccess
from homeserver.services.rooms.state_fetch import StateFetch
from homeserver.services.rooms.taking import EventTaking


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """The one gate, and what lies behind it."""

    gate: EventGate
    outliers: Outliers
    state_fetch: StateFetch
    placing: EventPlacing
    events: IncomingEvents
    out_of_band: OutOfBandMemberships
    server_access: ServerAccess


def compose_incoming(means: Means, *, writing: RoomWriting, remotes: Remotes, push: PushEvaluator) -> Incoming:
    """Builds the services."""
    db, bus, clock, server_name = means.db, means.bus, means.clock, means.config.server_name
    states, resolver = writing.states, writing.resolver
    gate, outliers = EventGate(keys=remotes.keys, clock=clock), Outliers(db=db, states=states)
    out_of_band = OutOfBandMemberships(db=db, bus=bus, server_name=server_name, push=push)
    server_access = ServerAccess(states=states)
    state_fetch = StateFetch(db=db, states=states, resolver=resolver, outliers=outliers)
    placing = EventPlacing(
        db=db,
        outliers=outliers,
        resolver=resolver,
        state_fetch=state_fetch,
        policy=writing.policy,
        appender=writing.remote_appender,
    )
    line = LineAppender(db=db, bus=bus, server_name=server_name, heads=writing.heads, lanes=writing.lanes, push=push)
    events = IncomingEvents(
        db=db,
        bus=bus,
        clock=clock,
        server_name=server_name,
        gate=gate,
        remote=remotes.events,
        access=server_access,
        out_of_band=RescindedInvites(db=db, out_of_band=out_of_band),
        taking=EventTaking(db=db, missing=MissingEvents(db=db), placing=placing, line=line, policy=writing.policy),
        policy=writing.policy,
        postponed=PostponedEvents(db=db, clock=clock),
        ends=GraphEnds(db=db, clock=clock, appender=writing.appender, server_name=server_name),
        arrivals=JoinsUnderWay(db=db, clock=clock),
    )
    return Incoming(
        gate=gate,
        outliers=outliers,
        state_fetch=state_fetch,
        placing=placing,
        events=events,
        out_of_band=out_of_band,
        server_access=server_access,
    )
