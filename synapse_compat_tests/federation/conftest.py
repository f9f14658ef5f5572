"""A Synapse and a Heliograph for all tests of federation, and fresh users of both for each test."""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest

from homeserver.web.observation import REQUESTS
from synapse_compat_tests.federation.servers import OurSide, Side, SynapseSide, running_heliograph, running_synapse
from synapse_compat_tests.synapse import python_of_synapse
from tests.conftest import new_database
from tests.federation.certificates import CertificateAuthority, IssuedCertificate
from tests.federation.servers.rooms import join, until_membership
from tests.real_client import Client

_numbers = count(1)


class NewHeliograph(Protocol):
    """Starts servers of ours, each with a database of its own."""

    def __call__(self, **options: Any) -> AbstractAsyncContextManager[OurSide]:
        """A server that runs until the block ends; options as for `running_heliograph`."""
        ...


@dataclass(frozen=True, slots=True)
class Pair:
    """Alice is a user of the one server, which is resident in her rooms; Bob is a user of the other one."""

    home: Side
    away: Side
    alice: Client
    bob: Client

    @property
    def clients(self) -> list[Client]:
        """Both."""
        return [self.alice, self.bob]

    async def share_room(self, **options: Any) -> str:
        """A public room of Alice, unless the options say otherwise, that Bob has joined, as both know."""
        room_id = await self.alice.create_room(**{"preset": "public_chat", **options})
        await join(self.bob, room_id, self.home.name)
        await until_membership(self.alice, room_id, self.bob.user_id, "join")
        return room_id


@pytest.fixture(scope="session")
def compat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers keep their data and logs; pytest keeps those of the last runs."""
    return tmp_path_factory.mktemp("compat")


@pytest.fixture(scope="session")
def authority(compat_folder: Path) -> CertificateAuthority:
    """The certificate authority that all servers trust."""
    return CertificateAuthority(compat_folder)


@pytest.fixture(scope="session")
def certificate(authority: CertificateAuthority) -> IssuedCertificate:
    """The certificate of every server."""
    return authority.issue("localhost", "127.0.0.1")


@pytest.fixture(scope="session")
async def synapse_side(
    compat_folder: Path, authority: CertificateAuthority, certificate: IssuedCertificate
) -> AsyncIterator[SynapseSide]:
    """The Synapse of all tests."""
    python = python_of_synapse()
    if python is None:
        pytest.skip("There is no Synapse to federate with: `make compat` installs one, or set SYNAPSE_PYTHON")
    async with running_synapse(compat_folder, python, authority, certificate) as side:
        yield side


@pytest.fixture(scope="session")
def new_heliograph(
    postgres_url: str,
    database_template: str,
    compat_folder: Path,
    authority: CertificateAuthority,
    certificate: IssuedCertificate,
) -> NewHeliograph:
    """Starts servers of ours."""

    @asynccontextmanager
    async def start(**options: Any) -> AsyncIterator[OurSide]:
        async with (
            asynccontextmanager(new_database)(postgres_url, template=database_template) as url,
            running_heliograph(compat_folder, url, authority, certificate, **options) as side,
        ):
            yield side

    return start


@pytest.fixture(scope="session")
async def our_side(new_heliograph: NewHeliograph) -> AsyncIterator[OurSide]:
    """The Heliograph of all tests that do not stop it."""
    async with new_heliograph() as side:
        yield side


@pytest.fixture(params=["ours", "synapse"])
def resident(request: pytest.FixtureRequest) -> str:
    """Which of both servers Alice and her rooms are on: each test is played both ways."""
    name: str = request.param
    return name


@pytest.fixture
async def pair(resident: str, our_side: OurSide, synapse_side: SynapseSide) -> AsyncIterator[Pair]:
    """Two users who do not know each other yet."""
    home, away = (our_side, synapse_side) if resident == "ours" else (synapse_side, our_side)
    async with meeting(home, away) as made:
        yield made


@pytest.fixture
async def trusting(authority: CertificateAuthority) -> AsyncIterator[aiohttp.ClientSession]:
    """For whoever speaks to a server as another one would."""
    trust = ssl.create_default_context(cafile=str(authority.ca_file))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as http:
        yield http


@asynccontextmanager
async def meeting(home: Side, away: Side) -> AsyncIterator[Pair]:
    """New users of two servers."""
    number = next(_numbers)
    async with home.user(f"alice{number}") as alice, away.user(f"bob{number}") as bob:
        yield Pair(home, away, alice, bob)


@pytest.fixture(autouse=True)
def nothing_fails() -> Iterator[None]:
    """Checks that our server answers no request with 500."""
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
