"""A server of several workers: the supervisor's process, which owns the sockets and replaces the workers on SIGHUP."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from homeserver.config.environment import PREFIX
from homeserver.config.schema import DatabaseConfig
from homeserver.runtime.clock import SystemClock
from homeserver.runtime.listeners import Listener, close_all, descriptors
from homeserver.runtime.logging import configure_logging
from homeserver.runtime.metrics import FOLDER_VARIABLE, forget_worker, workers_folder
from homeserver.runtime.settings import EMBEDDED, Settings, take_up_settings
from homeserver.runtime.signals import on_signal, on_stop_signal
from homeserver.runtime.supervisor import Plan, Supervisor, Worker
from homeserver.runtime.worker_process import WorkerMeans, WorkerProcess, start_worker
from storage.database import Database
from storage.errors import DatabaseError
from storage.leases import delete_leases_of_process

logger = structlog.get_logger()

# What a worker needs beyond the time for its requests: leading clients away, ending followers, closing connections.
STOP_SECONDS_EXTRA: Final = 18.0
RELEASE_SECONDS_MAX: Final = 5.0

MakePlan = Callable[[Settings, tuple[Listener, ...]], Plan]


class Fleet:
    """Runs the workers of one server."""

    def __init__(
        self,
        *,
        config_file: Path,
        environment: Mapping[str, str],
        settings: Settings,
        database: DatabaseConfig,
        listeners: tuple[Listener, ...],
    ) -> None:
        """Takes what the server was started with.

        Args:
            config_file: where the settings are read again.
            environment: the settings over it.
            settings: as they were read first.
            database: the database, which runs.
            listeners: what the workers listen on; this object closes them.
        """
        self._config_file = config_file
        self._environment = environment
        self._settings = settings
        self._database = database
        self._listeners = listeners
        self._clock = SystemClock()

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT."""
        stop, asked = asyncio.Event(), asyncio.Event()
        on_stop_signal(stop.set)
        on_signal(signal.SIGHUP, asked.set)
        with workers_folder() as (metrics_folder, metrics_lock), _pipe() as lifeline:
            make_plan = partial(self._plan, metrics_folder=metrics_folder, inherited=(metrics_lock,), lifeline=lifeline)
            limits = self._settings.config.limits
            supervisor = Supervisor(
                plan=make_plan(self._settings, self._listeners),
                # The workers' sockets are the same: only when all have closed them, callers are refused.
                stopping=lambda: close_all(self._listeners),
                ended=partial(self._ended, metrics_folder=metrics_folder),
                stop_seconds_max=limits.shutdown_timeout_ms / 1000 + STOP_SECONDS_EXTRA,
                clock=self._clock,
            )
            async with asyncio.TaskGroup() as group:
                reloading = group.create_task(self._reload_when(asked, supervisor, make_plan))
                await supervisor.run(stop)
                reloading.cancel()

    def _plan(
        self,
        settings: Settings,
        listeners: tuple[Listener, ...],
        *,
        metrics_folder: Path,
        inherited: tuple[int, ...],
        lifeline: int,
    ) -> Plan:
        environment = {**self._environment, FOLDER_VARIABLE: str(metrics_folder)}
        if settings.config.database.url == EMBEDDED:
            environment[f"{PREFIX}DATABASE_URL"] = self._database.url
        means = WorkerMeans(
            config_file=self._config_file,
            config_text=settings.text,
            environment=environment,
            sockets=descriptors(listeners),
            inherited=(*(bound.fileno() for listener in listeners for bound in listener.sockets), *inherited),
            lifeline=lifeline,
        )

        async def start(number: int) -> WorkerProcess:
            return await start_worker(number, means)

        return Plan(settings.config.workers, start)

    async def _reload_when(self, asked: asyncio.Event, supervisor: Supervisor, make_plan: MakePlan) -> None:
        """Replaces the workers by such with the settings of now, whenever that is asked for."""
        while True:
            await asked.wait()
            asked.clear()
            logger.info("reloading")
            found = take_up_settings(
                self._config_file, self._environment, current=self._settings.config, listeners=self._listeners
            )
            if found is None:
                continue
            settings, listeners = found
            plan = make_plan(settings, listeners)
            replaced = await supervisor.replace_all(plan)
            if supervisor.plan is plan:
                listeners, self._listeners = self._listeners, listeners
                self._adopt(settings)
            close_all(listeners)
            if replaced:
                logger.info("reloaded", workers=settings.config.workers)

    def _adopt(self, settings: Settings) -> None:
        self._settings = settings
        if settings.config.database.url != EMBEDDED:
            self._database = settings.config.database
        configure_logging(settings.config.logging)

    async def _ended(self, worker: Worker, status: int, *, metrics_folder: Path) -> None:
        """Tidies up after a worker: one that has died has given nothing back."""
        forget_worker(worker.pid, metrics_folder)
        if status == 0 or not isinstance(worker, WorkerProcess) or worker.lease_holder is None:
            return
        settings = replace(self._database, pool_size_min=0, pool_size_max=1)
        try:
            async with (
                asyncio.timeout(RELEASE_SECONDS_MAX),
                Database(settings.url, settings) as db,
                db.connection() as conn,
            ):
                count = await delete_leases_of_process(conn, worker.lease_holder)
        except (DatabaseError, TimeoutError, OSError) as error:
            logger.warning("the leases of a dead worker are left to expire", reason=type(error).__name__)
        else:
            logger.info("the leases of a dead worker are free", leases=count)


@contextmanager
def _pipe() -> Iterator[int]:
    """The reading end of a pipe whose writing end only this process has: it ends when this process does."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)
