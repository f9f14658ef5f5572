"""Whole servers agree at rest, whatever the network did to them.

A seed that fails names itself. `FLEET_SEEDS=100` tries more seeds than usual, and `FLEET_FIRST_SEED=4711` begins with
another one; `FLEET_STEPS` says how much happens with each.
"""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

import pytest

from tests.conftest import new_database
from tests.fast_clock import FastClock
from tests.federation.certificates import CertificateAuthority
from tests.federation.deployment import Deployment, running_deployment
from tests.simulation.fleet import QUARREL, TALK, Fleet, Inhabitant

FIRST_SEED = int(os.environ.get("FLEET_FIRST_SEED", "0"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("FLEET_SEEDS", "3")))
STEPS = int(os.environ.get("FLEET_STEPS", "40"))
SERVERS = 3


@pytest.fixture
async def deployment(postgres_url: str, database_template: str, tmp_path: Path) -> AsyncIterator[Deployment]:
    """Servers for which a minute is a second, so that they soon try again what has failed."""
    databases = partial(asynccontextmanager(new_database), postgres_url, template=database_template)
    authority, clock = CertificateAuthority(tmp_path), FastClock(speed=60)
    certificate = authority.issue("localhost")
    async with running_deployment(databases, authority, certificate, tmp_path, clock=clock) as running:
        yield running


@pytest.mark.seconds_max(240)
@pytest.mark.parametrize("seed", SEEDS)
async def test_all_servers_agree_at_rest(deployment: Deployment, seed: int) -> None:
    random = Random(seed)
    deployment.network.random = Random(seed)
    async with AsyncExitStack() as stack:
        users = [
            Inhabitant(server, await stack.enter_async_context(server.user(name)))
            for server in await deployment.start(SERVERS)
            for name in ("anna", "ben")
        ]
        fleet = Fleet(deployment, users, random)
        await fleet.open_room()
        await fleet.run(STEPS, QUARREL)
        await fleet.come_to_rest(compare_timelines=False)
        await fleet.forget_the_past()
        await fleet.run(STEPS, TALK)
        await fleet.come_to_rest()
