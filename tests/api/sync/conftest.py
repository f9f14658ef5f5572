"""A whole server for each test, and users with a device each."""

from collections.abc import AsyncIterator

import pytest

from tests.api.server import Site, composed_server
from tests.api.sync.api import Device, register


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    """A server."""
    async with composed_server(database_url) as running:
        yield running


@pytest.fixture
async def people(site: Site) -> list[Device]:
    """Alice, Bob and Carol."""
    return await register(site, "alice", "bob", "carol")


@pytest.fixture
async def alice(people: list[Device]) -> Device:
    """A user."""
    return people[0]


@pytest.fixture
async def bob(people: list[Device]) -> Device:
    """Another user."""
    return people[1]


@pytest.fixture
async def carol(people: list[Device]) -> Device:
    """A third user."""
    return people[2]
