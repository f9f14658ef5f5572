"""Serves an application on its listeners with Hypercorn, until it is told to stop."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from hypercorn.config import Config as HypercornConfig
from quart import Quart

from homeserver.config.schema import LimitsConfig
from homeserver.runtime.application import Application
from homeserver.runtime.connections import Connections
from homeserver.runtime.listeners import Listener
from homeserver.web.dispatch import prepare
from homeserver.web.http import HttpSettings, mount

logger = structlog.get_logger()

BACKLOG: Final = 1024
# So long clients are led away from a worker that was replaced; those that say nothing meanwhile are cut off.
RETIRE_SECONDS: Final = 3.0
HEALTH_LOOK_SECONDS: Final = 0.2
WEBSOCKET_PING_SECONDS: Final = 30.0
# Room for a request line with long filters and for the headers of proxies.
HEADERS_BYTES_MAX: Final = 64 * 1024
# What balances load asks each port that it sends requests to.
ALWAYS_SERVED: Final = "health"


async def serve(
    application: Application,
    *,
    listeners: Sequence[Listener],
    limits: LimitsConfig,
    stop: asyncio.Event,
    retire: asyncio.Event | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serves until it is told to end, then stops accepting, lets requests finish, and ends the background tasks.

    It takes the listeners' sockets over and closes them. A background task that fails ends the server: who
    supervises it starts it again.

    Args:
        application: what is served.
        listeners: where.
        limits: how long requests may take, and how long after the end has begun.
        stop: the server stops: whatever is not being answered is closed.
        retire: another worker has taken this one's place: clients are led there first, and then it stops.
        on_ready: is called once requests are answered and the server can do its work.
    """
    asyncio.get_running_loop().set_exception_handler(_log_unhandled)
    retire = retire or asyncio.Event()
    async with asyncio.TaskGroup() as background:
        tasks = [background.create_task(_run(task.run), name=task.name) for task in application.background]
        served = [_connections(application, listener, limits) for listener in listeners]
        try:
            for listener, connections in zip(listeners, served, strict=True):
                await connections.start()
                for url in listener.urls:
                    logger.info("listening", url=url, resources=listener.config.resources)
            telling = background.create_task(_tell_ready(application, on_ready))
            await _first_of(stop.wait, retire.wait)
            telling.cancel()
            logger.info("retiring" if retire.is_set() else "stopping", timeout_ms=limits.shutdown_timeout_ms)
            application.drain()
            if retire.is_set():
                await _lead_away(served, stop)
        finally:
            await _end(served, limits)
        for task in tasks:
            task.cancel()


async def _tell_ready(application: Application, on_ready: Callable[[], None]) -> None:
    while not await application.is_healthy():
        await application.clock.sleep(HEALTH_LOOK_SECONDS)
    on_ready()


async def _lead_away(served: Sequence[Connections], stop: asyncio.Event) -> None:
    """Gives clients the time to notice that they should connect anew, which another worker then answers."""
    for connections in served:
        connections.retire()

    async def gone() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(RETIRE_SECONDS):
                for connections in served:
                    await connections.wait_closed()

    await _first_of(gone, stop.wait)


async def _first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Waits until one of them returns."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(wait)) for wait in waits]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


async def _end(served: Sequence[Connections], limits: LimitsConfig) -> None:
    async with asyncio.TaskGroup() as group:
        ends = [group.create_task(connections.end(limits.shutdown_timeout_ms / 1000)) for connections in served]
    if not all(end.result() for end in ends):
        logger.warning("requests were cut off")


async def _run(work: Any) -> None:
    await work()


def _connections(application: Application, listener: Listener, limits: LimitsConfig) -> Connections:
    app = listener_app(application, listener, limits)
    return Connections(app, _hypercorn_config(listener, limits), listener.sockets)


def listener_app(application: Application, listener: Listener, limits: LimitsConfig) -> Quart:
    """The ASGI application of one listener: the sections of its resources, and `/health`, which each one has."""
    config = listener.config
    app = Quart("heliograph", static_folder=None)
    resources = dict.fromkeys((*config.resources, ALWAYS_SERVED))
    sections = {id(section): section for name in resources for section in application.sections.get(name, ())}
    mount(
        app,
        operations=prepare(sections.values()),
        dispatcher=application.dispatcher,
        clock=application.clock,
        settings=HttpSettings(
            trusted_proxies=[str(network) for network in config.x_forwarded],
            body_seconds=limits.request_timeout_ms / 1000,
        ),
        websocket=application.websocket if "client" in config.resources else None,
    )
    return app


def _hypercorn_config(listener: Listener, limits: LimitsConfig) -> HypercornConfig:
    config = HypercornConfig()
    if listener.config.tls is not None:
        config.certfile = str(listener.config.tls.certificate)
        config.keyfile = str(listener.config.tls.private_key)
    config.backlog = BACKLOG
    config.errorlog = logging.getLogger("hypercorn.error")
    config.accesslog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = HEADERS_BYTES_MAX
    config.keep_alive_timeout = limits.keep_alive_ms / 1000
    config.keep_alive_max_requests = 1_000_000
    config.read_timeout = (limits.request_timeout_ms + limits.sync_timeout_ms_max) // 1000
    config.websocket_ping_interval = WEBSOCKET_PING_SECONDS
    return config


def _log_unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keeps quiet about clients that cannot speak TLS or have gone."""
    if not isinstance(context.get("exception"), ssl.SSLError | ConnectionError):
        loop.default_exception_handler(context)
