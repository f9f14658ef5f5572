"""A server with the endpoints that read rooms, and some of its users."""

from collections.abc import AsyncIterator

import pytest

from tests.api.history.api import ReadingServer, User, reading_server


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[ReadingServer]:
    """The server."""
    async with reading_server(database_url) as running:
        yield running


@pytest.fixture
async def alice(server: ReadingServer) -> User:
    """A user."""
    return await server.user("alice")


@pytest.fixture
async def bob(server: ReadingServer) -> User:
    """Another user."""
    return await server.user("bob")


@pytest.fixture
async def carol(server: ReadingServer) -> User:
    """A third user."""
    return await server.user("carol")
