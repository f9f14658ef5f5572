"""A server, and some of its users."""

from collections.abc import AsyncIterator

import pytest

from tests.api.ephemeral.api import EphemeralApi, Person, ephemeral_api


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[EphemeralApi]:
    """The server."""
    async with ephemeral_api(database_url) as running:
        yield running


@pytest.fixture
async def alice(api: EphemeralApi) -> Person:
    """A user."""
    return await api.person("alice")


@pytest.fixture
async def bob(api: EphemeralApi) -> Person:
    """Another user."""
    return await api.person("bob")


@pytest.fixture
async def carol(api: EphemeralApi) -> Person:
    """A third user."""
    return await api.person("carol")
