"""A server that runs as a process for all tests of a module, and two users with matrix-nio's client for each test."""

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
from nio import AsyncClient

from tests.clients.nio_clients import registered
from tests.conftest import new_database
from tests.processes import HomeserverProcess, homeserver

_numbers = count(1)


@pytest.fixture(scope="module")
async def server(
    postgres_url: str, database_template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[HomeserverProcess]:
    """A server with open registration, which has made no mistake when the tests are over."""
    folder: Path = tmp_path_factory.mktemp("homeserver")
    async for database_url in new_database(postgres_url, template=database_template):
        async with homeserver(folder, database_url) as running:
            yield running
            assert running.mistakes == []


@pytest.fixture
async def alice(server: HomeserverProcess) -> AsyncIterator[AsyncClient]:
    """A user."""
    async with registered(server.url, f"alice{next(_numbers)}") as client:
        yield client


@pytest.fixture
async def bob(server: HomeserverProcess) -> AsyncIterator[AsyncClient]:
    """Another user."""
    async with registered(server.url, f"bob{next(_numbers)}") as client:
        yield client
