"""A Synapse to measure beside ours: in the same PostgreSQL, with a database of its own as it wants it."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from bench.server import SERVER_NAME, Place, Server
from synapse_compat_tests.synapse import SynapseProcess


async def prepared(where: Place, python: str, name: str, **settings: Any) -> SynapseProcess:
    """Makes the database; nothing runs yet.

    Args:
        where: the PostgreSQL, and the folder for its files.
        python: a Python that has `matrix-synapse` and `psycopg2`.
        name: of its database and of its folder.
        settings: what its configuration says in place of what it says for tests.
    """
    connection = await asyncpg.connect(where.database_url)
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
    await connection.close()
    database = {"name": "psycopg2", "args": {"dsn": where.url_of(name), "cp_min": 5, "cp_max": 10}}
    return SynapseProcess(where.folder / name, python, SERVER_NAME, {"database": database, **settings})


@asynccontextmanager
async def running(process: SynapseProcess, where: Place) -> AsyncIterator[Server]:
    """What was prepared, until the block ends; it can be started again afterwards."""
    started = time.perf_counter()
    await process.start()
    seconds = time.perf_counter() - started
    try:
        assert process.process is not None
        yield Server(process.url, process.process.pid, where.postmaster_pid, start_seconds=seconds)
    finally:
        await process.stop()


@asynccontextmanager
async def synapse(where: Place, python: str, name: str, **settings: Any) -> AsyncIterator[Server]:
    """A Synapse that runs until the block ends; the arguments are those of `prepared`."""
    async with running(await prepared(where, python, name, **settings), where) as server:
        yield server
