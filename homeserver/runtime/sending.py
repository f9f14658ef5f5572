"""Builds what tells other servers of news: the follower that queues events, and the queues."""

from collections.abc import Sequence

from federation.outbound import device_list_sender, sender
from federation.outbound.delivery import Delivery
from federation.outbound.device_list_recovery import DeviceListRecovery
from federation.outbound.device_list_sender import DeviceListSender
from federation.outbound.edu_audience import EduAudience
from federation.outbound.edu_feed import EduFeed
from federation.outbound.pending_edus import PendingEdus
from federation.outbound.queue import DestinationQueues
from federation.outbound.room_servers import RoomServers
from federation.outbound.sender import Sender
from federation.outbound.shares import Shares
from federation.outbound.transactions import Transactions
from federation.wire.allowed_servers import AllowedServers
from homeserver.runtime.accounts import Means
from homeserver.runtime.application import BackgroundTask
from homeserver.runtime.other_servers import Lines
from homeserver.services.e2ee.key_queries import KeyQueries
from homeserver.services.stream.follower import Follower
from homeserver.services.stream.hub import Hub
from storage.events import EventCache
from storage.state import StateStore


def compose_sending(
    means: Means, *, hub: Hub, states: StateStore, queries: KeyQueries, lines: Lines | None
) -> Sequence[BackgroundTask]:
    """Builds what runs beside the listeners; nothing calls it, it finds what is new in the streams.

    Without lines to other servers, what would have to be told of devices is cleared away.
    """
    server_name = means.config.server_name
    allowed = AllowedServers(allowed=None, denied=(), enabled=False) if lines is None else lines.allowed
    room_servers = RoomServers(server_name=server_name, states=states, events=EventCache())
    audience = EduAudience(server_name=server_name, room_servers=room_servers, allowed=allowed)
    device_lists = _device_lists(means, hub=hub, queries=queries, audience=audience, lines=lines)
    if lines is None:
        return device_lists
    return [*device_lists, *_queues(means, hub=hub, room_servers=room_servers, audience=audience, lines=lines)]


def _device_lists(
    means: Means, *, hub: Hub, queries: KeyQueries, audience: EduAudience, lines: Lines | None
) -> Sequence[BackgroundTask]:
    """What tells of changed devices and keys."""
    db, bus, clock = means.db, means.bus, means.clock
    follower = Follower(
        name=device_list_sender.NAME,
        keys=device_list_sender.KEYS,
        consumer=DeviceListSender(db=db, bus=bus, clock=clock, queries=queries, audience=audience),
        db=db,
        hub=hub,
        clock=clock,
        gather_seconds=device_list_sender.GATHER_SECONDS,
    )
    told = BackgroundTask("device_list_sender", follower.run)
    if lines is None:
        return (told,)
    recovery = DeviceListRecovery(db=db, bus=bus, clock=clock, queries=queries, audience=audience)
    lines.destinations.on_back(recovery.note_back)
    return (told, BackgroundTask("device_list_recovery", recovery.run))


def _queues(
    means: Means, *, hub: Hub, room_servers: RoomServers, audience: EduAudience, lines: Lines
) -> Sequence[BackgroundTask]:
    """What tells of everything else, and sends."""
    db, bus, clock, server_name = means.db, means.bus, means.clock, means.config.server_name
    follower = Follower(
        name=sender.NAME,
        keys=sender.KEYS,
        consumer=Sender(server_name=server_name, db=db, bus=bus, room_servers=room_servers, allowed=lines.allowed),
        db=db,
        hub=hub,
        clock=clock,
        gather_seconds=sender.GATHER_SECONDS,
    )
    shares, pending = Shares(db=db, clock=clock), PendingEdus(clock=clock)
    feed = EduFeed(
        server_name=server_name,
        db=db,
        hub=hub,
        clock=clock,
        shares=shares,
        pending=pending,
        audience=audience,
        presence_enabled=means.config.presence.enabled,
    )
    delivery = Delivery(
        server_name=server_name,
        clock=clock,
        client=lines.client,
        destinations=lines.destinations,
        transactions=Transactions(db=db, clock=clock),
        pending=pending,
    )
    queues = DestinationQueues(
        db=db,
        bus=bus,
        clock=clock,
        destinations=lines.destinations,
        shares=shares,
        delivery=delivery,
        pending=pending,
        feed=feed,
    )
    return (
        BackgroundTask("destination_shares", shares.run),
        BackgroundTask("federation_edus", feed.run),
        BackgroundTask("federation_queues", queues.run),
        BackgroundTask("federation_sender", follower.run),
    )
