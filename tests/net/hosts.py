"""Other hosts for tests: servers on loopback that answer with a function, and a name service that knows them."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class FakeNames:
    """A `HostLookup` that knows what a test tells it."""

    hosts: Mapping[str, Sequence[str]]
    asked: list[str] = field(default_factory=list)

    async def addresses(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.hosts:
            raise OSError(f"{host} is not known")
        return self.hosts[host]

    async def close(self) -> None:
        return


@dataclass
class Host:
    """A server that runs: its port, and what it was asked."""

    port: int
    requests: list[web.BaseRequest] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)


@asynccontextmanager
async def http_host(
    answer: Answer, *, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1"
) -> AsyncIterator[Host]:
    """A server that answers every request with a function."""
    host = Host(0)

    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        host.requests.append(request)
        host.connections.add(request.transport)
        return await answer(request)

    runner = web.ServerRunner(web.Server(respond), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address, 0, ssl_context=tls)
        await site.start()
        host.port = runner.addresses[0][1]
        yield host
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_host(answer: bytes, *, hold: bool = False) -> AsyncIterator[int]:
    """The port of a server that sends the same bytes to everybody, and then hangs up unless it holds the line."""
    released = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if hold:
            await released.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        released.set()
        server.close()
        await server.wait_closed()
