"""The connections of a listener: Hypercorn's protocols on sockets that are accepted here, so that they end in steps.

Hypercorn's own loop stops accepting and ends idle connections in one; who has just connected then loses a request.
Here a worker that is to be replaced stops accepting first, answers what still comes on its connections and tells each
client to connect anew, and ends the idle ones when that had time to happen.
"""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from socket import socket
from typing import Any, Final

from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config as HypercornConfig
from hypercorn.utils import wrap_app

from homeserver.runtime.connection import Connection

CANCEL_SECONDS_MAX: Final = 1.0
PAUSE_SECONDS_MAX: Final = 0.2


class Connections:
    """Accepts and serves the connections of some sockets, which it takes over."""

    def __init__(self, app: Any, config: HypercornConfig, sockets: Sequence[socket]) -> None:
        """Takes an ASGI application and bound sockets; `start` makes them listen."""
        self._app = wrap_app(_Farewell(app, self), config.wsgi_max_body_size, "asgi")
        self._config = config
        self._sockets = sockets
        self._context = _Context()
        self._servers: list[asyncio.Server] = []
        self._running: dict[asyncio.Task[Any], Connection] = {}
        self._all_gone = asyncio.Event()
        self._all_gone.set()
        self._is_cutting_off = False

    @property
    def is_retiring(self) -> bool:
        """Whether clients are to connect elsewhere."""
        return self._context.retiring.is_set()

    async def start(self) -> None:
        """Accepts connections from now on."""
        secure: dict[str, Any] = {}
        if self._config.ssl_enabled:
            secure["ssl"] = self._config.create_ssl_context()
            secure["ssl_handshake_timeout"] = self._config.ssl_handshake_timeout
        for bound in self._sockets:
            self._servers.append(
                await asyncio.start_server(self._serve, sock=bound, backlog=self._config.backlog, **secure)
            )

    def retire(self) -> None:
        """Accepts no more; clients are told with each answer (of HTTP/1.1) that they shall connect anew."""
        self._context.retiring.set()
        for server in self._servers:
            server.close()

    async def wait_closed(self) -> None:
        """Waits until all clients have gone."""
        await self._all_gone.wait()

    async def end(self, seconds_max: float) -> bool:
        """Accepts no more, closes what is idle, and lets requests finish; False if some had to be cut off."""
        self.retire()
        await self._context.terminated.set()
        for connection in list(self._running.values()):
            connection.end_if_idle()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                await self.wait_closed()
        late, self._is_cutting_off = set(self._running), True
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=CANCEL_SECONDS_MAX)
        return not late

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        connection = Connection(self._app, loop, self._config, self._context, {}, reader, writer)
        self._running[task] = connection
        self._all_gone.clear()
        try:
            await connection
        except* (ConnectionError, ssl.SSLError):
            pass  # of a peer that has gone, or goes on sending on a connection that is being closed
        except* asyncio.CancelledError:
            if not self._is_cutting_off:
                raise
        finally:
            del self._running[task]
            if not self._running:
                self._all_gone.set()


class _Context(WorkerContext):
    """What connections share; the pause between a WebSocket's pings ends soon, for the connection lasts as long."""

    def __init__(self) -> None:
        super().__init__(None)
        self.retiring = asyncio.Event()

    async def sleep(self, wait: float) -> None:  # type: ignore[override]
        """Waits, but not for long once the connections are to end."""
        is_retiring = self.retiring.is_set()
        event, seconds = (asyncio.Event(), min(wait, PAUSE_SECONDS_MAX)) if is_retiring else (self.retiring, wait)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()


class _Farewell:
    """Passes everything on to an application; while the connections retire, answers say that they end there."""

    def __init__(self, app: Any, connections: Connections) -> None:
        self._app = app
        self._connections = connections

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["http_version"] == "2":
            await self._app(scope, receive, send)
            return

        async def send_last(message: Any) -> None:
            if self._connections.is_retiring and message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_last)
