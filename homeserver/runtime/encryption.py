"""Builds what end-to-end encryption needs of the server, and its endpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from client_api.sections import cross_signing, dehydrated_devices, key_backup, keys, send_to_device
from federation.outbound.destination_wakes import wake_destinations
from homeserver.runtime.accounts import Means
from homeserver.runtime.application import BackgroundTask
from homeserver.runtime.other_servers import OtherServers
from homeserver.services.accounts.devices import Devices
from homeserver.services.accounts.uia import UserInteractiveAuth
from homeserver.services.e2ee import shared_rooms
from homeserver.services.e2ee.cross_signing import CrossSigning
from homeserver.services.e2ee.dehydrated_devices import DehydratedDevices
from homeserver.services.e2ee.device_list_resync import DeviceListResync
from homeserver.services.e2ee.device_lists import KeyChanges
from homeserver.services.e2ee.key_backup import KeyBackups
from homeserver.services.e2ee.key_claims import KeyClaims
from homeserver.services.e2ee.key_queries import KeyQueries
from homeserver.services.e2ee.key_signatures import KeySignatures
from homeserver.services.e2ee.key_uploads import KeyUploads
from homeserver.services.e2ee.remote_device_updates import RemoteDeviceUpdates
from homeserver.services.e2ee.remote_keys import KeysOfOtherServers
from homeserver.services.e2ee.served_device_lists import ServedDeviceLists
from homeserver.services.e2ee.shared_rooms import SharedRooms
from homeserver.services.e2ee.to_device import ToDeviceSending
from homeserver.services.stream.follower import Follower
from homeserver.services.stream.hub import Hub
from homeserver.web.endpoint import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """The services that others build upon, and all endpoints."""

    claims: KeyClaims
    queries: KeyQueries
    to_device: ToDeviceSending
    remote_updates: RemoteDeviceUpdates
    served_lists: ServedDeviceLists
    sections: Sequence[Section]
    background: Sequence[BackgroundTask]


def compose_encryption(
    means: Means, *, hub: Hub, devices: Devices, uia: UserInteractiveAuth, others: OtherServers
) -> Encryption:
    """Builds the services and their endpoints."""
    db, bus, clock, server_name = means.db, means.bus, means.clock, means.config.server_name
    remote = others.remotes.user_keys
    resync = DeviceListResync(db=db, bus=bus, clock=clock, remote=remote)
    if others.lines is not None:
        others.lines.destinations.on_back(resync.note_back)
    sharing = Follower(
        name=shared_rooms.NAME,
        keys=shared_rooms.KEYS,
        consumer=SharedRooms(db=db, server_name=server_name),
        db=db,
        hub=hub,
        clock=clock,
        gather_seconds=shared_rooms.GATHER_SECONDS,
    )
    remote_keys = KeysOfOtherServers(db=db, remote=remote, resync=resync)
    queries = KeyQueries(db=db, server_name=server_name, remote=remote_keys)
    claims = KeyClaims(db=db, bus=bus, server_name=server_name, remote=remote_keys)
    lines = others.lines
    to_device = ToDeviceSending(
        db=db,
        bus=bus,
        clock=clock,
        server_name=server_name,
        reaches=lambda server: lines is not None and lines.allowed.allows(server),
        wake_destinations=partial(wake_destinations, bus),
    )
    signatures = KeySignatures(db=db, bus=bus, queries=queries)
    return Encryption(
        claims=claims,
        queries=queries,
        to_device=to_device,
        remote_updates=RemoteDeviceUpdates(db=db, bus=bus, resync=resync),
        served_lists=ServedDeviceLists(db=db, server_name=server_name, queries=queries),
        sections=(
            keys.section(KeyUploads(db=db, bus=bus), queries, claims, KeyChanges(db=db)),
            cross_signing.section(CrossSigning(db=db, bus=bus), signatures, uia),
            key_backup.section(KeyBackups(db=db)),
            send_to_device.section(to_device),
            dehydrated_devices.section(DehydratedDevices(db=db, bus=bus, devices=devices), clock),
        ),
        background=(BackgroundTask("device_lists", resync.run), BackgroundTask("shared_rooms", sharing.run)),
    )
