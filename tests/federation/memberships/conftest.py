"""A server with a user, and another server."""

from collections.abc import AsyncIterator

import pytest

from tests.api.server import Client
from tests.federation.memberships.world import Elsewhere, World, running_world


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """The server under test."""
    async with running_world(database_url) as running:
        yield running


@pytest.fixture
async def alice(world: World) -> Client:
    """A user of it."""
    return await world.site.register("alice")


@pytest.fixture
def other(world: World) -> Elsewhere:
    """Another server."""
    return world.server()
