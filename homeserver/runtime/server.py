"""Serves an application on its listeners with Hypercorn, until it is told to stop."""

import asyncio
import logging
import ssl
from collections.abc import Sequence
from typing import Any, Final

import structlog
from hypercorn.asyncio import serve as serve_hypercorn
from hypercorn.config import Config as HypercornConfig
from quart import Quart

from homeserver.config.schema import LimitsConfig
from homeserver.runtime.application import Application
from homeserver.runtime.listeners import Listener
from homeserver.web.dispatch import prepare
from homeserver.web.http import HttpSettings, mount

logger = structlog.get_logger()

BACKLOG: Final = 1024
STOP_SECONDS_EXTRA: Final = 1.0
WEBSOCKET_PING_SECONDS: Final = 30.0
# Room for a request line with long filters and for the headers of proxies.
HEADERS_BYTES_MAX: Final = 64 * 1024
# What balances load asks each port that it sends requests to.
ALWAYS_SERVED: Final = "health"


async def serve(
    application: Application, *, listeners: Sequence[Listener], limits: LimitsConfig, stop: asyncio.Event
) -> None:
    """Serves until `stop`, then stops accepting, lets requests finish within the limit, and ends the background tasks.

    It takes the listeners' sockets over and closes them. A background task that fails ends the server: who
    supervises it starts it again.
    """
    asyncio.get_running_loop().set_exception_handler(_log_unhandled)
    async with asyncio.TaskGroup() as background:
        tasks = [background.create_task(_run(task.run), name=task.name) for task in application.background]
        async with asyncio.TaskGroup() as serving:
            for listener in listeners:
                serving.create_task(_serve_listener(application, listener, limits, stop))
            await stop.wait()
            logger.info("stopping", timeout_ms=limits.shutdown_timeout_ms)
            application.drain()
        for task in tasks:
            task.cancel()


async def _run(work: Any) -> None:
    await work()


async def _serve_listener(
    application: Application, listener: Listener, limits: LimitsConfig, stop: asyncio.Event
) -> None:
    for bound in listener.sockets:
        bound.listen(BACKLOG)
    urls = listener.urls
    for url in urls:
        logger.info("listening", url=url, resources=listener.config.resources)
    app, config = listener_app(application, listener, limits), _hypercorn_config(listener, limits)
    limit = asyncio.timeout(None)
    try:
        async with limit:

            async def stopped() -> None:
                await stop.wait()
                # Hypercorn's own limit begins when all connections are closed, on some event loops.
                limit.reschedule(asyncio.get_running_loop().time() + config.graceful_timeout + STOP_SECONDS_EXTRA)

            await serve_hypercorn(app, config, shutdown_trigger=stopped)
    except TimeoutError:
        if not limit.expired():
            raise
        logger.warning("requests were cut off", urls=urls)
    except ssl.SSLError as error:
        # Hypercorn lets it pass when a peer goes on sending on a connection that is being closed.
        if not stop.is_set():
            raise
        logger.warning("a connection ended badly while stopping", urls=urls, reason=error.reason)


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
    config.bind = [f"fd://{bound.detach()}" for bound in listener.sockets]
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
    config.graceful_timeout = limits.shutdown_timeout_ms / 1000
    config.websocket_ping_interval = WEBSOCKET_PING_SECONDS
    return config


def _log_unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keeps quiet about clients that cannot speak TLS or have gone."""
    if not isinstance(context.get("exception"), ssl.SSLError | ConnectionError):
        loop.default_exception_handler(context)
