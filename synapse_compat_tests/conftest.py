"""Both servers, for as long as the tests run."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from synapse_compat_tests.synapse import python_of_synapse, synapse
from tests.conftest import (  # noqa: F401 (fixtures and hooks, which pytest finds by their names here)
    _event_loop,
    bucket,
    database_template,
    postgres_url,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_runtest_makereport,
    s3_url,
)
from tests.processes import homeserver

SERVER_NAME = "test"
SETTINGS = {
    "server_name": SERVER_NAME,
    "registration": {"enabled": True, "require_verification": False, "guest_access": True},
    "presence": {"enabled": False},
}


@dataclass
class Servers:
    """Where both servers are, and which of the allowed differences have been met so far."""

    synapse_url: str
    our_url: str
    met: set[str] = field(default_factory=set)
    played: set[str] = field(default_factory=set)


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder for what the servers keep."""
    path = Path(tempfile.mkdtemp(prefix="heliograph-compat-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
async def servers(postgres_url: str, database_template: str, folder: Path) -> AsyncIterator[Servers]:  # noqa: F811
    """A Synapse and this server, both empty."""
    python = python_of_synapse()
    if python is None:
        pytest.skip("There is no Synapse to compare with: `make compat` installs one, or set SYNAPSE_PYTHON")
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"CREATE DATABASE compat TEMPLATE {database_template}")
    await connection.close()
    database_url = postgres_url.replace("/postgres?", "/compat?")
    async with synapse(folder / "synapse", python, SERVER_NAME) as synapse_url:
        async with homeserver(folder / "heliograph", database_url, **SETTINGS) as ours:
            yield Servers(synapse_url, ours.url)
            assert ours.mistakes == []
