"""Builds the ways to other servers: what the use cases may ask of them, and how their requests are known as theirs."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from federation.inbound import server_keys, version
from federation.inbound.authentication import ServerAuthentication
from federation.outbound.backoff import Destinations
from federation.outbound.client import FederationClient
from federation.outbound.discovery import ServerDiscovery
from federation.outbound.key_ring import KeyRing
from federation.outbound.key_sources import KeySources, Notary
from federation.outbound.policy_servers import FederationPolicyServers
from federation.outbound.remote_directories import FederationDirectories
from federation.outbound.remote_events import FederationEvents
from federation.outbound.remote_media import FederationMedia
from federation.outbound.remote_profiles import FederationProfiles
from federation.outbound.remote_public_rooms import FederationPublicRooms
from federation.outbound.remote_rooms import FederationRooms
from federation.outbound.remote_user_keys import FederationUserKeys
from federation.outbound.srv import DnsSrvLookup
from federation.outbound.well_known import HttpWellKnown
from federation.wire.allowed_servers import AllowedServers
from federation.wire.server_keys import DeniedKeys
from homeserver.config.schema import FederationConfig
from homeserver.core.errors import Unauthorized
from homeserver.core.own_keys import OwnKeys
from homeserver.net.addresses import AddressPolicy
from homeserver.net.http_client import HttpClient
from homeserver.net.tls import client_tls
from homeserver.runtime.accounts import Means
from homeserver.runtime.application import BackgroundTask
from homeserver.services.media.ports import NoRemoteMedia, RemoteMediaSource
from homeserver.services.no_remotes import (
    NoPolicyServers,
    NoRemoteDirectories,
    NoRemoteEvents,
    NoRemoteRooms,
    NoRemoteUserKeys,
    NoServerKeys,
)
from homeserver.services.ports import NoRemoteProfiles, RemoteProfiles, RemotePublicRooms
from homeserver.services.remote import (
    PolicyServers,
    RemoteDirectories,
    RemoteEvents,
    RemoteRooms,
    RemoteUserKeys,
    ServerKeys,
)
from homeserver.web.dispatch import Authenticate
from homeserver.web.endpoint import Endpoint, Request, Section

MakeHttpClient = Callable[[FederationConfig], HttpClient]
"""Makes the client for calls to other hosts, which `compose` opens and closes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remotes:
    """The ports through which the use cases ask other servers. By default there are no other servers."""

    rooms: RemoteRooms = field(default_factory=NoRemoteRooms)
    events: RemoteEvents = field(default_factory=NoRemoteEvents)
    directories: RemoteDirectories = field(default_factory=NoRemoteDirectories)
    public_rooms: RemotePublicRooms = field(default_factory=NoRemoteDirectories)
    profiles: RemoteProfiles = field(default_factory=NoRemoteProfiles)
    keys: ServerKeys = field(default_factory=NoServerKeys)
    user_keys: RemoteUserKeys = field(default_factory=NoRemoteUserKeys)
    policy_servers: PolicyServers = field(default_factory=NoPolicyServers)
    media: RemoteMediaSource = field(default_factory=NoRemoteMedia)


async def refuse_server(_: Endpoint, __: Request) -> Request:
    """For a server that does not federate: no request is another server's.

    Raises:
        Unauthorized: always.
    """
    raise Unauthorized("This server does not federate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """What reaches other servers over the network, for what sends to them by itself."""

    client: FederationClient
    destinations: Destinations
    allowed: AllowedServers


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherServers:
    """How a worker deals with other servers; as it stands here it does not at all.

    Attributes:
        remotes: what the use cases ask them.
        lines: the network; None where nothing is sent.
        authenticate: finds out which server a request comes from.
        sections: what other servers ask before they can sign and check anything.
        background: what runs beside the listeners for it.
    """

    remotes: Remotes = field(default_factory=Remotes)
    lines: Lines | None = None
    authenticate: Authenticate = refuse_server
    sections: Sequence[Section] = ()
    background: Sequence[BackgroundTask] = ()


def http_client(config: FederationConfig) -> HttpClient:
    """The client for calls to other hosts that the settings say."""
    return HttpClient(
        policy=AddressPolicy(blocklist=config.ip_range_blocklist, allowlist=config.ip_range_allowlist),
        tls=client_tls(ca_file=config.ca_file, verify=config.verify_certificates),
    )


async def connect_other_servers(
    means: Means, *, own_keys: OwnKeys, make_http_client: MakeHttpClient, stack: AsyncExitStack
) -> OtherServers:
    """Builds the ways to other servers that the settings say.

    Args:
        means: what it is made with.
        own_keys: what this server signs with.
        make_http_client: makes what connects to other hosts.
        stack: takes down what is opened here.
    """
    config, clock = means.config, means.clock
    if not config.federation.enabled:
        return OtherServers()
    http = await stack.enter_async_context(make_http_client(config.federation))
    allowed = AllowedServers(allowed=config.federation.allowed_servers, denied=config.federation.denied_servers)
    destinations = Destinations(db=means.db, clock=clock)
    client = FederationClient(
        http=http,
        discovery=ServerDiscovery(well_known=HttpWellKnown(http=http, clock=clock), srv=DnsSrvLookup(), clock=clock),
        destinations=destinations,
        servers=allowed,
        server_name=config.server_name,
        key=own_keys.signing,
        clock=clock,
    )
    denied = DeniedKeys(config.federation.denied_keys)
    notaries = [Notary.configured(server) for server in config.federation.trusted_key_servers]
    keys = KeyRing(
        db=means.db,
        clock=clock,
        sources=KeySources(client=client, notaries=notaries, denied=denied, clock=clock),
        denied=denied,
        server_name=config.server_name,
        own_keys=own_keys,
    )
    authentication = ServerAuthentication(
        keys=keys,
        servers=allowed,
        server_name=config.server_name,
        clock=clock,
        note_contact=destinations.note_contact,
    )
    return OtherServers(
        remotes=Remotes(
            keys=keys,
            rooms=FederationRooms(client),
            events=FederationEvents(client),
            directories=FederationDirectories(client),
            public_rooms=FederationPublicRooms(client),
            profiles=FederationProfiles(client),
            user_keys=FederationUserKeys(client),
            policy_servers=FederationPolicyServers(client),
            media=FederationMedia(client=client, http=http),
        ),
        authenticate=authentication.authenticate,
        sections=(
            server_keys.section(own_keys=own_keys, server_name=config.server_name, others=keys, clock=clock),
            version.section(),
        ),
        lines=Lines(client=client, destinations=destinations, allowed=allowed),
        background=(BackgroundTask("destinations", destinations.run), BackgroundTask("server_keys", keys.run)),
    )
