"""A server with some users, for media."""

from collections.abc import AsyncIterator

import pytest

from homeserver.config.schema import Config
from storage.database import Database
from tests.api.media.api import Gallery
from tests.api.server import CONFIG, Client, Site, composed_server, with_changes
from tests.s3_server import Bucket


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Has tests run on both stores; those that look at many cases, on files only."""
    if "config" in metafunc.fixturenames:
        many_cases = metafunc.definition.get_closest_marker("parametrize") is not None
        metafunc.parametrize("config", ["files"] if many_cases else ["files", "s3"], indirect=True)


@pytest.fixture
def config(request: pytest.FixtureRequest) -> Config:
    """The server's settings."""
    if request.param == "files":
        return CONFIG
    bucket: Bucket = request.getfixturevalue("bucket")
    return with_changes(CONFIG, media={"storage": "s3", "s3": bucket.config})


@pytest.fixture
async def site(database_url: str, config: Config) -> AsyncIterator[Site]:
    """The server."""
    async with composed_server(database_url, config) as running:
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


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """The server's database."""
    async with Database(database_url) as opened:
        yield opened


@pytest.fixture
async def admin(site: Site, db: Database) -> Client:
    """An administrator."""
    client = await site.register("admin")
    async with db.connection() as conn:
        await conn.execute("UPDATE users SET is_admin = true WHERE user_id = $1", client.user_id)
    return await site.login("admin")
