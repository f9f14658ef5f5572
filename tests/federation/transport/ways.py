"""What a server needs to ask others and to be asked, put together as in production but without the rest of it."""

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from federation.inbound.authentication import ServerAuthentication
from federation.outbound.backoff import Destinations
from federation.outbound.client import FederationClient
from federation.outbound.discovery import ServerDiscovery
from federation.outbound.key_ring import KeyRing
from federation.outbound.key_sources import KeySources, Notary
from federation.outbound.slots import RequestSlots
from federation.outbound.srv import SrvAnswer
from federation.outbound.target import Discovery
from federation.outbound.well_known import WellKnown
from federation.wire.allowed_servers import AllowedServers
from federation.wire.server_keys import DeniedKeys
from homeserver.core.ids import ServerName
from homeserver.core.own_keys import OwnKeys
from homeserver.core.signing import SigningKey
from homeserver.net.addresses import AddressPolicy
from homeserver.net.http_client import HttpClient
from homeserver.net.tls import client_tls
from storage.database import Database
from tests.fast_clock import FastClock
from tests.federation.certificates import CertificateAuthority
from tests.federation.peer import Peer

US = ServerName.parse("us.test")


@dataclass
class FakeWellKnown:
    """What domains say, told by a test; None stands for one that cannot be asked."""

    said: dict[str, WellKnown | None] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def fetch(self, host: str) -> WellKnown | None:
        self.asked.append(host)
        return self.said.get(host)


@dataclass
class FakeSrv:
    """Records by name, told by a test; None stands for a name service that does not answer."""

    found: dict[str, SrvAnswer | None] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def records(self, name: str) -> SrvAnswer | None:
        self.asked.append(name)
        return self.found.get(name, SrvAnswer((), 60))


@dataclass(kw_only=True)
class Ways:
    """The parts, by their names."""

    clock: FastClock
    own_keys: OwnKeys
    destinations: Destinations
    client: FederationClient
    keys: KeyRing
    authentication: ServerAuthentication

    @property
    def key(self) -> SigningKey:
        """What this server signs with."""
        return self.own_keys.signing


def new_key(version: str = "1") -> SigningKey:
    """A key of its own for each test."""
    return SigningKey.from_seed(version, secrets.token_bytes(32))


@asynccontextmanager
async def open_ways(
    db: Database,
    clock: FastClock,
    authority: CertificateAuthority,
    *,
    own_keys: OwnKeys | None = None,
    discovery: Discovery | None = None,
    allowed: Sequence[str] | None = None,
    denied: Sequence[str] = (),
    notaries: Sequence[Notary] = (),
    denied_keys: Sequence[str] = (),
    slots: Mapping[str, Any] | None = None,
    peers: Sequence[Peer] = (),
) -> AsyncIterator[Ways]:
    """The ways of the server `us.test`, whose keys some peers know."""
    own = own_keys or OwnKeys(active=(new_key(),))
    servers = AllowedServers(allowed=allowed, denied=denied)
    destinations = Destinations(db=db, clock=clock)
    tls = client_tls(ca_file=authority.ca_file)
    async with HttpClient(policy=AddressPolicy(blocklist=()), tls=tls) as http:
        client = FederationClient(
            http=http,
            discovery=discovery or ServerDiscovery(well_known=FakeWellKnown(), srv=FakeSrv(), clock=clock),
            destinations=destinations,
            servers=servers,
            server_name=US,
            key=own.signing,
            clock=clock,
            slots=RequestSlots(**(slots or {})),
        )
        refused = DeniedKeys(denied_keys)
        sources = KeySources(client=client, notaries=notaries, denied=refused, clock=clock)
        keys = KeyRing(db=db, clock=clock, sources=sources, denied=refused, server_name=US, own_keys=own)
        authentication = ServerAuthentication(
            keys=keys, servers=servers, server_name=US, clock=clock, note_contact=destinations.note_contact
        )
        for peer in peers:
            peer.keys[US, own.signing.key_id] = own.signing.verify_key
        yield Ways(
            clock=clock,
            own_keys=own,
            destinations=destinations,
            client=client,
            keys=keys,
            authentication=authentication,
        )
