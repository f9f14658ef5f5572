"""A server that runs as a process, and two users with matrix-nio's client."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nio import AsyncClient

from tests.clients.nio_clients import registered
from tests.processes import HomeserverProcess, homeserver


@pytest.fixture
async def server(database_url: str, tmp_path: Path) -> AsyncIterator[HomeserverProcess]:
    """A server with open registration, which has made no mistake when the test is over."""
    async with homeserver(tmp_path / "server", database_url) as running:
        yield running
        assert running.mistakes == []


@pytest.fixture
async def alice(server: HomeserverProcess) -> AsyncIterator[AsyncClient]:
    """A user."""
    async with registered(server.url, "alice") as client:
        yield client


@pytest.fixture
async def bob(server: HomeserverProcess) -> AsyncIterator[AsyncClient]:
    """Another user."""
    async with registered(server.url, "bob") as client:
        yield client
