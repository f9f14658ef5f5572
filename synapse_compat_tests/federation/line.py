"""A line to a server, that can be cut: what comes to its port is passed on to another one, byte for byte."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CHUNK_BYTES = 65_536


class Line:
    """Listens where others look for a server, and passes on what they say while it is not cut."""

    def __init__(self, target_port: int) -> None:
        """Takes the port of this machine at which the server itself listens."""
        self._target_port = target_port
        self._is_cut = False
        self._talks: set[asyncio.StreamWriter] = set()
        self._listening: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where others look for the server."""
        assert self._listening is not None, "it is not open"
        port: int = self._listening.sockets[0].getsockname()[1]
        return port

    async def open(self) -> None:
        """Begins to listen, at a port that is free."""
        self._listening = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)

    async def close(self) -> None:
        """Ends everything."""
        self.cut()
        if self._listening is not None:
            self._listening.close()
            await self._listening.wait_closed()

    def cut(self) -> None:
        """Ends all connections, and each new one as soon as it is made."""
        self._is_cut = True
        for writer in self._talks:
            writer.transport.abort()

    def mend(self) -> None:
        """Lets new connections through."""
        self._is_cut = False

    async def _pass_on(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            if self._is_cut:
                raise ConnectionAbortedError("The line is cut")
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            near.transport.abort()
            return
        self._talks |= {near, far}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_copy(near_reader, far))
                both.create_task(_copy(far_reader, near))
        finally:
            self._talks -= {near, far}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    # One side that ends, ends both: HTTP needs no half of a connection.
    writer.close()


@asynccontextmanager
async def line_to(port: int) -> AsyncIterator[Line]:
    """A line to a port of this machine, open until the block ends."""
    line = Line(port)
    await line.open()
    try:
        yield line
    finally:
        await line.close()
