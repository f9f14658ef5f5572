"""A server with some users, for media."""

from collections.abc import AsyncIterator

import pytest

from tests.api.media.api import Gallery
from tests.api.server import Client, Site, composed_server


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    """The server."""
    async with composed_server(database_url) as running:
        yield running


@pytest.fixture
async def alice(site: Site) -> Client:
    """A user."""
    return await site.register("alice")


@pytest.fixture
async def bob(site: Site) -> Client:
    """Another user."""
    return await site.register("bob")


@pytest.fixture
async def gallery(alice: Client) -> Gallery:
    """What Alice uploads and downloads."""
    return Gallery(alice)
