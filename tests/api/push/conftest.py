"""A whole server, and some of its users."""

from collections.abc import AsyncIterator

import pytest

from tests.api.push.api import User, register
from tests.api.server import Site, composed_server


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    """The server."""
    async with composed_server(database_url) as running:
        yield running


@pytest.fixture
async def alice(site: Site) -> User:
    """A user."""
    return await register(site, "alice")


@pytest.fixture
async def bob(site: Site) -> User:
    """Another user."""
    return await register(site, "bob")


@pytest.fixture
async def carol(site: Site) -> User:
    """A third user."""
    return await register(site, "carol")
