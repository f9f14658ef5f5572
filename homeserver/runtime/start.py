"""Starts the server: one process that serves, or a supervisor with workers; and the embedded PostgreSQL under both."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from homeserver.config.environment import PREFIX
from homeserver.config.load import load_config
from homeserver.config.schema import Config
from homeserver.config.values import Secret
from homeserver.core.clock import Clock
from homeserver.runtime.clock import SystemClock
from homeserver.runtime.compose import compose
from homeserver.runtime.listeners import Listener, bind_all, close_all, descriptors, inherit
from homeserver.runtime.logging import configure_logging
from homeserver.runtime.metrics import FOLDER_VARIABLE, forget_worker, workers_folder
from homeserver.runtime.server import serve
from homeserver.runtime.supervisor import Supervisor
from storage.embedded import LOCK_SECONDS_MAX, AlreadyOwned, EmbeddedPostgres
from storage.errors import DatabaseUnavailable
from storage.migrate import Migration, migrate, status

logger = structlog.get_logger()

EMBEDDED: Final = "embedded"
DATABASE_SECONDS_MAX: Final = 60.0
# What a worker needs beyond the time for its requests: ending followers and closing connections.
STOP_SECONDS_EXTRA: Final = 15.0


class ServerError(Exception):
    """The server cannot start, or cannot go on; the message says why and what to do."""


def run_server(config_file: Path, environment: Mapping[str, str]) -> None:
    """Runs the server until SIGTERM or SIGINT.

    Raises:
        ConfigError, ServerError, ListenError, EmbeddedPostgresError, DatabaseError: it cannot start.
    """
    # Until the event loop takes it over, SIGTERM too ends the blocks below in good order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config = load_config(config_file, environment)
    configure_logging(config.logging)
    config.data_dir.mkdir(parents=True, exist_ok=True)
    listeners = bind_all(config.listeners)
    with database_of(config) as config:
        uvloop.run(prepare_database(config.database.url, SystemClock()))
        if config.workers == 1:
            _run(_serve(config, listeners))
        else:
            _run(_supervise(config, config_file, environment, listeners))
    logger.info("stopped")


def run_worker(config_file: Path, environment: Mapping[str, str], *, number: int, sockets: str, lifeline: int) -> None:
    """Runs one of several workers; only the supervisor calls this.

    Args:
        config_file: the configuration.
        environment: the supervisor's, with the URL of the database.
        number: the worker's, for the log.
        sockets: the sockets it inherits, as `descriptors` wrote them.
        lifeline: a pipe that ends with the supervisor.
    """
    config = load_config(config_file, environment)
    configure_logging(config.logging)
    structlog.contextvars.bind_contextvars(worker=number)
    _run(_serve(config, inherit(config.listeners, sockets), lifeline=lifeline))


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        uvloop.run(work)
    except ExceptionGroup as error:
        logger.error("the server failed", exc_info=error)
        raise ServerError("The server failed; the log says why") from error


@contextmanager
def database_of(config: Config, *, join: bool = False) -> Iterator[Config]:
    """The configuration with a database that runs: the embedded one is started, and stopped at the end.

    Args:
        config: the configuration.
        join: use an embedded database that another process, a server, is running.

    Raises:
        EmbeddedPostgresError: it does not start, or another process owns it and `join` is false.
    """
    if config.database.url != EMBEDDED:
        yield config
        return
    postgres = EmbeddedPostgres(config.data_dir / "postgres")
    try:
        url = postgres.start(lock_seconds_max=0 if join else LOCK_SECONDS_MAX)
    except AlreadyOwned:
        if not join:
            raise
        url = postgres.join()
    try:
        yield replace(config, database=replace(config.database, url=Secret(url)))
    finally:
        postgres.stop()


async def prepare_database(url: str, clock: Clock) -> None:
    """Waits for the database, and brings its schema up to date.

    Raises:
        ServerError: it does not answer in time, or positions in it lie in the future.
        MigrationError: it was migrated by a newer program.
    """
    for migration in await _migrate_patiently(url, clock):
        logger.info("migrated", version=migration.version, name=migration.name)
    if (await status(url)).rebase_needed:
        raise ServerError("The database was restored from a dump: run `homeserver db rebase` once")


async def _migrate_patiently(url: str, clock: Clock) -> list[Migration]:
    deadline = clock.monotonic() + DATABASE_SECONDS_MAX
    while True:
        try:
            return await migrate(url)
        except DatabaseUnavailable as error:
            if clock.monotonic() > deadline:
                raise ServerError("The database does not answer") from error
            logger.warning("waiting for the database")
            await clock.sleep(1)


async def _serve(config: Config, listeners: Sequence[Listener], *, lifeline: int | None = None) -> None:
    stop = asyncio.Event()
    on_stop_signal(stop.set)
    if lifeline is not None:
        asyncio.get_running_loop().add_reader(lifeline, stop.set)
    async with compose(config, SystemClock()) as application:
        await serve(application, listeners=listeners, limits=config.limits, stop=stop)


async def _supervise(
    config: Config, config_file: Path, environment: Mapping[str, str], listeners: Sequence[Listener]
) -> None:
    stop = asyncio.Event()
    on_stop_signal(stop.set)
    inherited = [bound.fileno() for listener in listeners for bound in listener.sockets]
    with workers_folder() as (metrics_folder, metrics_lock), _pipe() as lifeline:
        worker_environment = {
            **environment,
            f"{PREFIX}DATABASE_URL": config.database.url,
            FOLDER_VARIABLE: str(metrics_folder),
        }

        def start_worker(number: int) -> Coroutine[Any, Any, asyncio.subprocess.Process]:
            options = {"--number": number, "--sockets": descriptors(listeners), "--lifeline": lifeline}
            words = [str(word) for option in options.items() for word in option]
            return asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "homeserver", "run-worker", "--config", str(config_file), *words),
                env=worker_environment,
                pass_fds=(*inherited, lifeline, metrics_lock),
                stdin=asyncio.subprocess.DEVNULL,
            )

        await Supervisor(
            workers=config.workers,
            start_worker=start_worker,
            # The workers' sockets are the same: only when all have closed them, callers are refused.
            stopping=lambda: close_all(listeners),
            ended=lambda pid: forget_worker(pid, metrics_folder),
            stop_seconds_max=config.limits.shutdown_timeout_ms / 1000 + STOP_SECONDS_EXTRA,
            clock=SystemClock(),
        ).run(stop)


@contextmanager
def _pipe() -> Iterator[int]:
    """The reading end of a pipe whose writing end only this process has: it ends when this process does."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


def on_stop_signal(stop: Callable[[], None]) -> None:
    """Calls `stop` on SIGTERM and SIGINT, in the running event loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
