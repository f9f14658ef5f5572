"""A server with the endpoints of rooms, and some of its users."""

from collections.abc import AsyncIterator

import pytest

from tests.api.rooms.api import RoomsApi, User, rooms_api


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[RoomsApi]:
    """The server."""
    async with rooms_api(database_url) as running:
        yield running


@pytest.fixture
async def alice(api: RoomsApi) -> User:
    """A user."""
    return await api.user("alice")


@pytest.fixture
async def bob(api: RoomsApi) -> User:
    """Another user."""
    return await api.user("bob")


@pytest.fixture
async def carol(api: RoomsApi) -> User:
    """A third user."""
    return await api.user("carol")
