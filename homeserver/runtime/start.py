"""Starts the server: one process that serves, or a supervisor with workers; and the embedded PostgreSQL under both."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import structlog
import uvloop

from homeserver.config.load import parse_config
from homeserver.config.schema import Config
from homeserver.config.values import Secret
from homeserver.core.clock import Clock
from homeserver.runtime.clock import SystemClock
from homeserver.runtime.compose import compose
from homeserver.runtime.fleet import Fleet
from homeserver.runtime.listeners import Listener, bind_all, close_all, descriptors, inherit
from homeserver.runtime.logging import configure_logging
from homeserver.runtime.server import serve
from homeserver.runtime.settings import EMBEDDED, Settings, read_settings, take_up_settings
from homeserver.runtime.signals import on_signal, on_stop_signal, prepare_signals
from homeserver.runtime.supervisor import RETIRE_SIGNAL
from homeserver.runtime.worker_process import Reports
from storage.embedded import LOCK_SECONDS_MAX, AlreadyOwned, EmbeddedPostgres
from storage.errors import DatabaseUnavailable
from storage.leases import PROCESS
from storage.migrate import Migration, migrate, status

T = TypeVar("T")

logger = structlog.get_logger()

DATABASE_SECONDS_MAX: Final = 60.0


class ServerError(Exception):
    """The server cannot start, or cannot go on; the message says why and what to do."""


def run_server(config_file: Path, environment: Mapping[str, str], *, sockets: str | None = None) -> None:
    """Runs the server until SIGTERM or SIGINT. On SIGHUP it takes up its configuration anew.

    Args:
        config_file: the configuration.
        environment: the settings over it.
        sockets: what the process listens on that has become this one, as `descriptors` wrote it.

    Raises:
        ConfigError, ServerError, ListenError, EmbeddedPostgresError, DatabaseError: it cannot start.
    """
    prepare_signals()
    settings = read_settings(config_file, environment)
    config = settings.config
    configure_logging(config.logging)
    config.data_dir.mkdir(parents=True, exist_ok=True)
    listeners = bind_all(config.listeners) if sockets is None else inherit(config.listeners, sockets)
    successors: tuple[Listener, ...] | None = None
    with database_of(config) as running:
        uvloop.run(prepare_database(running.database.url, SystemClock()))
        if config.workers == 1:
            reread = partial(take_up_settings, config_file, environment, current=config, listeners=listeners)
            successors = _run(_serve_alone(running, listeners, reread))
        else:
            fleet = Fleet(
                config_file=config_file,
                environment=environment,
                settings=settings,
                database=running.database,
                listeners=listeners,
            )
            _run(fleet.run())
    prepare_signals()
    if successors is not None:
        _become_anew(config_file, environment, successors)
    logger.info("stopped")


def run_worker(
    config_file: Path, environment: Mapping[str, str], *, number: int, sockets: str, lifeline: int, reports: int
) -> None:
    """Runs one of several workers; only the supervisor calls this. The configuration comes on standard input.

    Args:
        config_file: where the configuration stood, for relative paths.
        environment: the supervisor's, with the URL of the database.
        number: the worker's, for the log.
        sockets: the sockets it inherits, as `descriptors` wrote them.
        lifeline: a pipe that ends with the supervisor.
        reports: a pipe to the supervisor.
    """
    prepare_signals()
    text = sys.stdin.buffer.read().decode()
    config = parse_config(text, folder=config_file.absolute().parent, environment=environment)
    configure_logging(config.logging)
    structlog.contextvars.bind_contextvars(worker=number)
    reporting = Reports(reports, lease_holder=PROCESS)
    _run(_serve_among_others(config, inherit(config.listeners, sockets), lifeline=lifeline, reports=reporting))


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return uvloop.run(work)
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


def _spare_collector() -> None:
    """Keeps the garbage collector off what is there now and stays: to go through it takes a tenth of a second."""
    gc.freeze()


async def _serve_alone(
    config: Config, listeners: Sequence[Listener], reread: Callable[[], tuple[Settings, tuple[Listener, ...]] | None]
) -> tuple[Listener, ...] | None:
    """Serves as the only process; returns, if it is to start anew, what it then listens on."""
    stop, retire = asyncio.Event(), asyncio.Event()
    successors: tuple[Listener, ...] | None = None

    def reload() -> None:
        nonlocal successors
        if successors is None and not stop.is_set():
            logger.info("reloading")
            found = reread()
            if found is not None:
                successors = found[1]
                retire.set()

    def end() -> None:
        nonlocal successors
        if successors is not None:
            close_all(successors)
            successors = None
        stop.set()

    on_stop_signal(end)
    on_signal(signal.SIGHUP, reload)
    async with compose(config, SystemClock()) as application:
        _spare_collector()
        await serve(application, listeners=listeners, limits=config.limits, stop=stop, retire=retire)
    return successors


async def _serve_among_others(
    config: Config, listeners: Sequence[Listener], *, lifeline: int, reports: Reports
) -> None:
    stop, retire = asyncio.Event(), asyncio.Event()
    on_stop_signal(stop.set)
    on_signal(RETIRE_SIGNAL, retire.set)
    asyncio.get_running_loop().add_reader(lifeline, stop.set)
    async with compose(config, SystemClock()) as application:
        _spare_collector()
        await serve(
            application,
            listeners=listeners,
            limits=config.limits,
            stop=stop,
            retire=retire,
            on_ready=reports.ready,
        )


def _become_anew(config_file: Path, environment: Mapping[str, str], listeners: Sequence[Listener]) -> NoReturn:
    """Becomes the same program from its beginning. Whoever connects meanwhile waits in the queues of the sockets."""
    for listener in listeners:
        for bound in listener.sockets:
            os.set_inheritable(bound.fileno(), True)
    sys.stdout.flush()
    words = ("-m", "homeserver", "run", "--config", str(config_file), "--sockets", descriptors(listeners))
    os.execve(sys.executable, (sys.executable, *words), dict(environment))  # noqa: S606 (there is no shell to want)
