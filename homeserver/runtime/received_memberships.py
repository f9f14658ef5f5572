"""Builds what other servers meet here when their users join, leave or knock, and when they invite ours."""

from collections.abc import Sequence

from federation.inbound import invites, joins, knocks, leaves, third_party_invites
from homeserver.core.signing import SigningKey
from homeserver.runtime.accounts import Means
from homeserver.services.remote import RemoteRooms
from homeserver.services.rooms.gate import EventGate
from homeserver.services.rooms.incoming import IncomingEvents
from homeserver.services.rooms.membership import Memberships
from homeserver.services.rooms.out_of_band import OutOfBandMemberships
from homeserver.services.rooms.partial_state import PartialStates
from homeserver.services.rooms.received_invites import ReceivedInvites
from homeserver.services.rooms.resident_joins import ResidentJoins
from homeserver.services.rooms.resident_templates import ResidentTemplates
from homeserver.services.rooms.server_access import ServerAccess
from homeserver.services.rooms.submitted_memberships import SubmittedMemberships
from homeserver.services.rooms.third_party_invites import ThirdPartyInvites
from homeserver.web.endpoint import Section
from storage.state import StateStore


def compose_received_memberships(
    means: Means,
    *,
    key: SigningKey,
    states: StateStore,
    access: ServerAccess,
    gate: EventGate,
    incoming: IncomingEvents,
    out_of_band: OutOfBandMemberships,
    memberships: Memberships,
    remote_rooms: RemoteRooms,
) -> Sequence[Section]:
    """Builds the services and their endpoints."""
    db, server_name = means.db, means.config.server_name
    templates = ResidentTemplates(
        db=db,
        clock=means.clock,
        server_name=server_name,
        access=access,
        partial_states=PartialStates(db=db, clock=means.clock),
    )
    submitted = SubmittedMemberships(
        db=db, gate=gate, incoming=incoming, access=access, server_name=server_name, key=key
    )
    resident_joins = ResidentJoins(db=db, memberships=submitted, states=states)
    received_invites = ReceivedInvites(
        db=db, gate=gate, access=access, out_of_band=out_of_band, server_name=server_name, key=key
    )
    exchanged_invites = ThirdPartyInvites(
        db=db,
        clock=means.clock,
        memberships=memberships,
        incoming=incoming,
        remote=remote_rooms,
        access=access,
        server_name=server_name,
        key=key,
    )
    return (
        joins.section(templates, resident_joins),
        leaves.section(templates, submitted),
        knocks.section(templates, resident_joins),
        invites.section(received_invites),
        third_party_invites.section(exchanged_invites),
    )
