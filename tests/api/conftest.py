"""A running server for each test, and clients of it."""

from collections.abc import AsyncIterator

import pytest

from tests.api.server import Client, Server, running_server


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    """A server with open registration."""
    async with running_server(database_url) as running:
        yield running


@pytest.fixture
async def alice(server: Server) -> Client:
    """A user."""
    return await server.register("alice")


@pytest.fixture
async def bob(server: Server) -> Client:
    """Another user."""
    return await server.register("bob")


@pytest.fixture
async def admin(server: Server) -> Client:
    """An administrator."""
    return await server.register_admin()
