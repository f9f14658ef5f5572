"""A whole server, and some of its users."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.push.api import PushServer, User, push_server


@pytest.fixture
async def server(database_url: str, tmp_path: Path) -> AsyncIterator[PushServer]:
    """The server."""
    async with push_server(database_url, tmp_path) as running:
        yield running


@pytest.fixture
async def alice(server: PushServer) -> User:
    """A user."""
    return await server.register("alice")


@pytest.fixture
async def bob(server: PushServer) -> User:
    """Another user."""
    return await server.register("bob")


@pytest.fixture
async def carol(server: PushServer) -> User:
    """A third user."""
    return await server.register("carol")
