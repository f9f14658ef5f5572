"""What all tests share: a real PostgreSQL, and a limit on every asynchronous test.

Each test process has a cluster of its own, made from the programs that come with the server: nothing need be installed.
"""

import asyncio
import functools
import inspect
import io
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from storage.embedded import EmbeddedPostgres
from storage.migrate import migrate
from tests.s3_server import Bucket, new_bucket, s3_server

TEST_SECONDS_MAX = 60
# What a test's fixtures may take beside it.
FIXTURES_SECONDS_MAX = 120
CLUSTER_PREFIX = "heliograph-test-"
MEMORY_BYTES_MIN = 4 * 1024**3

# No test may lose its data by a power cut.
FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "max_prepared_transactions": "4",
    "jit": "off",
}

EVENT_LOOP = pytest.StashKey[asyncio.AbstractEventLoop]()

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Ends fixtures properly when the run is terminated, so that no PostgreSQL stays behind."""
    config.addinivalue_line("markers", "seconds_max(seconds): another limit than the usual one")
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives each asynchronous test a limit: its marker `seconds_max`, or the usual one."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            marker = item.get_closest_marker("seconds_max")
            seconds = marker.args[0] if marker else TEST_SECONDS_MAX
            item.obj = _limited(item.obj, seconds)
            item.add_marker(pytest.mark.timeout(seconds + FIXTURES_SECONDS_MAX))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tells, of what hung, where each task of the event loop waits."""
    report = yield
    if call.excinfo is not None and "Timeout" in call.excinfo.exconly() and EVENT_LOOP in item.session.stash:
        stacks = io.StringIO()
        for task in asyncio.all_tasks(item.session.stash[EVENT_LOOP]):
            task.print_stack(file=stacks)
        report.sections.append(("Tasks of the event loop", stacks.getvalue()))
    return report


@pytest.fixture(scope="session", autouse=True)
async def _event_loop(request: pytest.FixtureRequest) -> None:
    request.session.stash[EVENT_LOOP] = asyncio.get_running_loop()


def _limited(
    test: Callable[..., Coroutine[Any, Any, None]], seconds: float
) -> Callable[..., Coroutine[Any, Any, None]]:
    @functools.wraps(test)
    async def limited(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(seconds):
            await test(*args, **kwargs)

    return limited


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of this test process's PostgreSQL, with the rights of a superuser."""
    _remove_abandoned_clusters()
    with _new_cluster_folder() as folder:
        postgres = EmbeddedPostgres(folder, settings=FAST)
        try:
            yield postgres.start()
        finally:
            postgres.stop()


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The URL of this test process's S3 server."""
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(s3_url: str) -> Bucket:
    """A fresh bucket for one test."""
    return new_bucket(s3_url)


@pytest.fixture
def cluster_folder() -> Iterator[Path]:
    """Where a test may make a PostgreSQL of its own.

    The path is short, so that its socket stays in there and its URL stays the same after a restart.
    """
    with _new_cluster_folder() as folder:
        yield folder


@contextmanager
def _new_cluster_folder() -> Iterator[Path]:
    top = Path(tempfile.mkdtemp(prefix=CLUSTER_PREFIX, dir=_clusters_folder()))
    try:
        yield top / "postgres"
    finally:
        shutil.rmtree(top, ignore_errors=True)


@pytest.fixture(scope="session")
async def database_template(postgres_url: str) -> str:
    """The name of a database with every migration, from which others are copied."""
    name = "template_migrated"
    await _execute(postgres_url, f"CREATE DATABASE {name}")
    await migrate(_with_database(postgres_url, name))
    return name


@pytest.fixture
async def database_url(postgres_url: str, database_template: str) -> AsyncIterator[str]:
    """The URL of a fresh, migrated database for one test."""
    async for url in new_database(postgres_url, template=database_template):
        yield url


@pytest.fixture
async def empty_database_url(postgres_url: str) -> AsyncIterator[str]:
    """The URL of a fresh database without any table."""
    async for url in new_database(postgres_url, template="template0"):
        yield url


async def new_database(postgres_url: str, *, template: str) -> AsyncIterator[str]:
    """The URL of a database that is dropped when the iterator goes on."""
    name = f"test_{next(_numbers)}"
    await _execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    yield _with_database(postgres_url, name)
    await _execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _with_database(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?")


def _clusters_folder() -> Path:
    """Where clusters are made: in memory, if there is room, for each test has a database that is copied and dropped."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= MEMORY_BYTES_MIN:
        return memory
    return Path(tempfile.gettempdir())


def _remove_abandoned_clusters() -> None:
    """Stops what the clusters of killed test runs left running."""
    for folder in _clusters_folder().glob(CLUSTER_PREFIX + "*"):
        abandoned = (folder / "postgres" / "postmaster.pid").exists()
        if abandoned and EmbeddedPostgres(folder / "postgres").stop_abandoned():
            shutil.rmtree(folder, ignore_errors=True)
