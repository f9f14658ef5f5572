"""Builds what gets users of this server into rooms elsewhere, and users of other servers into rooms of this one."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from homeserver.core.signing import SigningKey
from homeserver.runtime.accounts import Means
from homeserver.runtime.application import BackgroundTask
from homeserver.runtime.incoming import Incoming
from homeserver.runtime.other_servers import Remotes
from homeserver.runtime.room_writing import RoomWriting
from homeserver.services.rooms.claimed_state import ClaimedStates
from homeserver.services.rooms.later_states import LaterStates
from homeserver.services.rooms.leased_work import LeasedWork
from homeserver.services.rooms.member_template import MemberEvents
from homeserver.services.rooms.partial_completion import PartialCompletion
from homeserver.services.rooms.partial_state import PartialStates
from homeserver.services.rooms.remote_join import RemoteJoins
from homeserver.services.rooms.remote_membership import RemoteMemberships
from homeserver.services.rooms.room_import import RoomImport


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipsElsewhere:
    """What memberships need of other servers, and what runs beside the listeners for it."""

    joins: RemoteJoins
    memberships: RemoteMemberships
    partial_states: PartialStates
    background: Sequence[BackgroundTask]


def compose_memberships_elsewhere(
    means: Means, *, key: SigningKey, writing: RoomWriting, incoming: Incoming, remotes: Remotes
) -> MembershipsElsewhere:
    """Builds the services; arguments as for `compose_rooms`."""
    db, bus, clock, server_name = means.db, means.bus, means.clock, means.config.server_name
    events = MemberEvents(server_name=server_name, key=key, clock=clock)
    claims = ClaimedStates(gate=incoming.gate, outliers=incoming.outliers, server_name=server_name)
    work = LeasedWork(db=db, clock=clock)
    partial_due = asyncio.Event()
    completion = PartialCompletion(
        db=db,
        bus=bus,
        clock=clock,
        server_name=server_name,
        remote=remotes.events,
        claims=claims,
        later=LaterStates(db=db, states=writing.states, resolver=writing.resolver),
        states=writing.states,
        heads=writing.heads,
        work=work,
        due=partial_due,
    )
    return MembershipsElsewhere(
        joins=RemoteJoins(
            db=db,
            clock=clock,
            server_name=server_name,
            remote=remotes.rooms,
            events=events,
            gate=incoming.gate,
            incoming=incoming.events,
            imports=RoomImport(
                db=db,
                bus=bus,
                server_name=server_name,
                gate=incoming.gate,
                claims=claims,
                states=writing.states,
                heads=writing.heads,
            ),
            work=work,
            omit_members=means.config.federation.faster_joins,
            partial_due=partial_due,
        ),
        memberships=RemoteMemberships(
            db=db,
            clock=clock,
            server_name=server_name,
            remote=remotes.rooms,
            profiles=remotes.profiles,
            keys=remotes.keys,
            events=events,
            gate=incoming.gate,
            incoming=incoming.events,
            out_of_band=incoming.out_of_band,
            appender=writing.appender,
        ),
        partial_states=PartialStates(db=db, clock=clock),
        background=(BackgroundTask("partial_rooms", completion.run),),
    )
