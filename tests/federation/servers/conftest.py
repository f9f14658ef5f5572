"""Two whole servers with a user each; and no server may ever answer 500, whatever another one sends it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from homeserver.core.ids import RoomId
from homeserver.web.observation import REQUESTS
from tests.conftest import new_database
from tests.fast_clock import FastClock
from tests.federation.certificates import CertificateAuthority, IssuedCertificate
from tests.federation.deployment import Deployment, Homeserver, running_deployment
from tests.federation.peer import Peer
from tests.federation.servers.encounter import Encounter
from tests.real_client import Client


@dataclass(frozen=True, slots=True)
class Pair:
    """Two servers: Alice is a user of the first, Bob of the second."""

    deployment: Deployment
    one: Homeserver
    two: Homeserver
    alice: Client
    bob: Client

    @property
    def places(self) -> list[tuple[Homeserver, Client]]:
        """Each server with its user."""
        return [(self.one, self.alice), (self.two, self.bob)]

    async def userinfo(self, server: Homeserver, token: str) -> tuple[int, Any]:
        """What a server says of an OpenID token, to anybody."""
        url = f"https://{server.name}/_matrix/federation/v1/openid/userinfo"
        async with self.alice.http.get(url, params={"access_token": token}, ssl=server.trust) as response:
            return response.status, await response.json()


@pytest.fixture(autouse=True)
def nothing_fails() -> Iterator[None]:
    """Checks that no request is answered with 500; other servers get what is wrong with theirs as 4xx."""
    before = _failures()
    yield
    assert _failures() == before


def _failures() -> dict[str, float]:
    samples = [sample for metric in REQUESTS.collect() for sample in metric.samples]
    return {
        sample.labels["operation"]: sample.value
        for sample in samples
        if sample.name.endswith("_total") and sample.labels["status"] == "500"
    }


@pytest.fixture
async def deployment(
    postgres_url: str,
    database_template: str,
    authority: CertificateAuthority,
    local_certificate: IssuedCertificate,
    tmp_path: Path,
) -> AsyncIterator[Deployment]:
    """Whole servers, as many as a test starts."""
    databases = partial(asynccontextmanager(new_database), postgres_url, template=database_template)
    async with running_deployment(databases, authority, local_certificate, tmp_path) as running:
        yield running


@pytest.fixture
async def fast_deployment(
    postgres_url: str,
    database_template: str,
    authority: CertificateAuthority,
    local_certificate: IssuedCertificate,
    tmp_path: Path,
) -> AsyncIterator[Deployment]:
    """Whole servers for which a minute is a second, so that they soon try again what has failed."""
    databases = partial(asynccontextmanager(new_database), postgres_url, template=database_template)
    clock = FastClock(speed=60)
    async with running_deployment(databases, authority, local_certificate, tmp_path, clock=clock) as running:
        yield running


@pytest.fixture
async def pair(deployment: Deployment) -> AsyncIterator[Pair]:
    """Two servers that do not know each other yet."""
    async with _pair(deployment) as made:
        yield made


@pytest.fixture
async def fast_pair(fast_deployment: Deployment) -> AsyncIterator[Pair]:
    """The same, where a minute is a second."""
    async with _pair(fast_deployment) as made:
        yield made


@asynccontextmanager
async def _pair(deployment: Deployment) -> AsyncIterator[Pair]:
    one, two = await deployment.start(2)
    async with one.user("alice") as alice, two.user("bob") as bob:
        yield Pair(deployment, one, two, alice, bob)


@pytest.fixture
async def encounter(deployment: Deployment, peer: Peer) -> AsyncIterator[Encounter]:
    """A room of ours that the peer's user Mallory has joined."""
    (server,) = await deployment.start()
    async with server.user("alice") as alice:
        room_id = RoomId(await alice.create_room(preset="public_chat", room_version="11"))
        room = await peer.join(server.name, room_id, peer.user("mallory"))
        yield Encounter(server, alice, peer, room)
