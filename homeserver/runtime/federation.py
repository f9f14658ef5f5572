"""Builds what other servers meet here: the endpoints of the server-server API, and what tells them of news."""

from collections.abc import Sequence
from dataclasses import dataclass

from federation.inbound import transactions, user_keys
from federation.inbound.edus import EduReceiver
from federation.inbound.transactions import Transactions
from homeserver.core.signing import SigningKey
from homeserver.runtime.accounts import Accounts, Means
from homeserver.runtime.application import BackgroundTask
from homeserver.runtime.encryption import Encryption
from homeserver.runtime.incoming import Incoming
from homeserver.runtime.live import Live
from homeserver.runtime.other_servers import OtherServers
from homeserver.runtime.reading import Reading
from homeserver.runtime.received_memberships import compose_received_memberships
from homeserver.runtime.room_writing import RoomWriting
from homeserver.runtime.rooms import Rooms
from homeserver.runtime.sending import compose_sending
from homeserver.runtime.served_reading import compose_served_reading
from homeserver.services.e2ee import remote_device_updates, to_device
from homeserver.services.rooms.joins_under_way import JoinsUnderWay
from homeserver.services.rooms.received_sweep import ReceivedSweep
from homeserver.services.stream.hub import Hub
from homeserver.web.endpoint import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """All endpoints, and what runs beside the listeners."""

    sections: Sequence[Section]
    background: Sequence[BackgroundTask]


def compose_federation(
    means: Means,
    *,
    hub: Hub,
    key: SigningKey,
    accounts: Accounts,
    writing: RoomWriting,
    rooms: Rooms,
    reading: Reading,
    live: Live,
    encryption: Encryption,
    incoming: Incoming,
    others: OtherServers,
) -> Federation:
    """Builds the services and their endpoints.

    Args:
        means: what it is made with.
        hub: wakes what follows the streams.
        key: what this server signs with.
        accounts: the services of accounts.
        writing: what writes into rooms.
        rooms: the services of rooms that clients use too.
        reading: likewise, what reads rooms.
        live: likewise, what passes in rooms.
        encryption: likewise, keys and messages to devices.
        incoming: what takes events of other servers in.
        others: the ways to other servers.
    """
    received_memberships = compose_received_memberships(
        means,
        key=key,
        states=writing.states,
        access=incoming.server_access,
        gate=incoming.gate,
        incoming=incoming.events,
        out_of_band=incoming.out_of_band,
        memberships=rooms.memberships,
        remote_rooms=others.remotes.rooms,
    )
    edus = EduReceiver(
        db=means.db,
        access=incoming.server_access,
        typing=live.typing,
        receipts=live.receipts,
        presence=live.presence,
        arrivals=JoinsUnderWay(db=means.db, clock=means.clock),
        others={
            to_device.EDU_TYPE: encryption.to_device.receive,
            remote_device_updates.DEVICE_LIST_UPDATE: encryption.remote_updates.receive_devices,
            remote_device_updates.SIGNING_KEY_UPDATE: encryption.remote_updates.receive_keys,
        },
    )
    received = transactions.section(Transactions(db=means.db, incoming=incoming.events, edus=edus))
    served = compose_served_reading(means, accounts=accounts, rooms=rooms, reading=reading)
    keys = user_keys.section(
        encryption.queries, encryption.claims, encryption.served_lists, server_name=means.config.server_name
    )
    sending = compose_sending(means, hub=hub, states=rooms.states, queries=encryption.queries, lines=others.lines)
    return Federation(
        sections=[*others.sections, received, *received_memberships, *served, keys],
        background=[
            BackgroundTask("received_sweep", ReceivedSweep(db=means.db, clock=means.clock).run),
            BackgroundTask("postponed_events", incoming.events.run),
            *sending,
        ],
    )
