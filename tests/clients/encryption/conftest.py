"""Two servers of ours that federate over TLS, and a program for devices with matrix-js-sdk."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from homeserver.web.observation import REQUESTS
from tests.clients.encryption.stage import Deployed, Stage
from tests.clients.javascript import JavaScript, javascript, missing
from tests.conftest import new_database
from tests.fast_clock import FastClock
from tests.federation.certificates import CertificateAuthority, IssuedCertificate
from tests.federation.conftest import authority, local_certificate  # noqa: F401 (fixtures)
from tests.federation.deployment import Deployment, running_deployment


@pytest.fixture(scope="module")
async def program(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[JavaScript]:
    """The program of all devices of a module."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    async with javascript(tmp_path_factory.mktemp("javascript")) as running:
        yield running


@pytest.fixture(scope="module")
async def towns(
    program: JavaScript,
    postgres_url: str,
    database_template: str,
    authority: CertificateAuthority,  # noqa: F811
    local_certificate: IssuedCertificate,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Deployed, Deployed]]:
    """Two servers for all tests of a module, which do not stop them."""
    databases = partial(asynccontextmanager(new_database), postgres_url, template=database_template)
    folder: Path = tmp_path_factory.mktemp("towns")
    async with running_deployment(databases, authority, local_certificate, folder) as deployment:
        yield await _two(deployment)


@pytest.fixture
async def stage(program: JavaScript, towns: tuple[Deployed, Deployed]) -> AsyncIterator[Stage]:
    """Two servers, and nobody there whom a test knows."""
    async for made in _stage(program, *towns):
        yield made


@pytest.fixture
async def fast_stage(
    program: JavaScript,
    postgres_url: str,
    database_template: str,
    authority: CertificateAuthority,  # noqa: F811
    local_certificate: IssuedCertificate,  # noqa: F811
    tmp_path: Path,
) -> AsyncIterator[Stage]:
    """Two servers of a test's own, which it may stop; a minute is a second for them."""
    databases = partial(asynccontextmanager(new_database), postgres_url, template=database_template)
    clock = FastClock(speed=60)
    async with running_deployment(databases, authority, local_certificate, tmp_path, clock=clock) as deployment:
        async for made in _stage(program, *await _two(deployment)):
            yield made


async def _two(deployment: Deployment) -> tuple[Deployed, Deployed]:
    one, two = await deployment.start(2)
    return Deployed(one, deployment), Deployed(two, deployment)


async def _stage(program: JavaScript, home: Deployed, away: Deployed) -> AsyncIterator[Stage]:
    made = Stage(program, home, away)
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def nothing_fails() -> Iterator[None]:
    """Checks that no request is answered with 500."""
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
