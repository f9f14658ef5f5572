"""What uploads, downloads and thumbnails cost, beside a Synapse in the same run: `python -m bench.media --help`.

Both servers stand on the same PostgreSQL, with all that makes it durable, and do the same work in turn. The CPU is that
of all processes of the server and of PostgreSQL.
"""

import argparse
import asyncio
import io
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from PIL import Image

from bench.client import http_session
from bench.server import Meter, Place, Server, place, running_server
from bench.synapse import synapse

MIB: Final = 1024 * 1024
AT_ONCE: Final = 4
ROUNDS: Final = 4
PICTURE_SIZE: Final = (4000, 3000)

_V1: Final = "/_matrix/client/v1/media"


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that is measured, and a user's session there."""

    name: str
    meter: Meter
    http: aiohttp.ClientSession
    url: str
    token: str

    async def upload(self, data: bytes, content_type: str) -> str:
        """Uploads something; returns `server/media id`."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        url = f"{self.url}/_matrix/media/v3/upload"
        async with self.http.post(url, data=io.BytesIO(data), headers=headers) as response:
            response.raise_for_status()
            return str((await response.json())["content_uri"]).removeprefix("mxc://")

    async def get(self, path: str, *, bytes_min: int = 1, **query: str) -> None:
        """Downloads something, and throws it away."""
        headers = {"Authorization": f"Bearer {self.token}"}
        size_bytes = 0
        async with self.http.get(f"{self.url}{_V1}/{path}", headers=headers, params=query) as response:
            response.raise_for_status()
            async for data in response.content.iter_any():
                size_bytes += len(data)
        if size_bytes < bytes_min:
            raise RuntimeError(f"{path} has {size_bytes} bytes")


@dataclass(frozen=True, slots=True)
class Result:
    """What one of some things cost: processor time of the server and of PostgreSQL, and how long it took."""

    server_ms: float
    database_ms: float
    elapsed_ms: float

    @property
    def cpu_ms(self) -> float:
        """Of both."""
        return self.server_ms + self.database_ms


async def measured(contender: Contender, work: Sequence[Callable[[], Awaitable[Any]]]) -> tuple[Result, list[Any]]:
    """Does some things, a few at once."""
    turns = asyncio.Semaphore(AT_ONCE)
    elapsed: list[float] = []

    async def one(do: Callable[[], Awaitable[Any]]) -> Any:
        async with turns:
            started = time.perf_counter()
            done = await do()
            elapsed.append(time.perf_counter() - started)
            return done

    async with contender.meter.measure() as costs, asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(do)) for do in work]
    (cost,) = costs
    share = 1000 / len(work)
    return (
        Result(cost.server * share, cost.database * share, sum(elapsed) * share),
        [task.result() for task in tasks],
    )


async def measure_files(contender: Contender, *, size_bytes: int, count: int) -> dict[str, Result]:
    """Uploads and downloads files of a size."""
    files = [os.urandom(size_bytes) for _ in range(count)]
    uploaded, paths = await measured(
        contender, [lambda data=data: contender.upload(data, "application/octet-stream") for data in files]
    )
    downloaded, _ = await measured(
        contender, [lambda path=path: contender.get(f"download/{path}", bytes_min=size_bytes) for path in paths]
    )
    label = f"{size_bytes // MIB} MiB" if size_bytes >= MIB else f"{size_bytes // 1024} KiB"
    return {f"upload of {label}": uploaded, f"download of {label}": downloaded}


async def measure_pictures(contender: Contender, pictures: Sequence[bytes]) -> dict[str, Result]:
    """Uploads photographs, and asks for two thumbnails of each."""
    uploaded, paths = await measured(
        contender, [lambda data=data: contender.upload(data, "image/jpeg") for data in pictures]
    )
    results = {"upload of a photograph": uploaded}
    for method, width, height in (("scale", 800, 600), ("crop", 96, 96)):
        wish = {"width": str(width), "height": str(height), "method": method}
        work = [lambda path=path, wish=wish: contender.get(f"thumbnail/{path}", **wish) for path in paths]
        label = f"thumbnail {width}x{height} {method}"
        results[f"{label}, first"], _ = await measured(contender, work)
        results[f"{label}, again"], _ = await measured(contender, work * 10)
    return results


def photograph(seed: int) -> bytes:
    """A JPEG of twelve million pixels, with about as much in it as photographs have."""
    width, height = PICTURE_SIZE
    noise = Image.effect_noise((width // 8, height // 8), 90).resize(PICTURE_SIZE, Image.Resampling.BICUBIC)
    fine = Image.effect_noise(PICTURE_SIZE, 12)
    slope = Image.linear_gradient("L").resize(PICTURE_SIZE).rotate(seed * 7)
    data = io.BytesIO()
    Image.merge("RGB", (Image.blend(noise, slope, 0.5), Image.blend(noise, fine, 0.5), slope)).save(
        data, "JPEG", quality=88
    )
    return data.getvalue()


@asynccontextmanager
async def heliograph(where: Place) -> AsyncIterator[Server]:
    """A server of ours."""
    async with running_server(where) as server:
        yield server


async def contender_of(name: str, server: Server, http: aiohttp.ClientSession) -> Contender:
    """A server with a user."""
    body = {"username": "photographer", "password": "a long password", "auth": {"type": "m.login.dummy"}}
    async with http.post(f"{server.url}/_matrix/client/v3/register", json=body) as response:
        response.raise_for_status()
        token = (await response.json())["access_token"]
    meter = Meter(server)
    await meter.calibrate()
    return Contender(name, meter, http, server.url, token)


async def measure_all(where: Place, synapse_python: str | None, *, scale: float) -> dict[str, dict[str, Result]]:
    """All work on all servers: results by work and by server."""
    results: dict[str, dict[str, Result]] = {}
    pictures = [await asyncio.to_thread(photograph, seed) for seed in range(max(2, round(10 * scale)))]
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(http_session())
        servers = {"Heliograph": await stack.enter_async_context(heliograph(where))}
        if synapse_python is not None:
            limit = {"max_upload_size": "100M"}
            for name, settings in (("Synapse", {}), ("Synapse, dynamic thumbnails", {"dynamic_thumbnails": True})):
                database = f"synapse_{len(servers)}"
                running = synapse(where, synapse_python, database, **limit, **settings)
                servers[name] = await stack.enter_async_context(running)
        contenders = [await contender_of(name, server, http) for name, server in servers.items()]
        for size_bytes, count in ((10 * 1024, 200), (MIB, 100), (32 * MIB, 4)):
            # In turn, and the cheapest round counts: what else the machine does makes work dearer, never cheaper.
            for contender in contenders[:2] * ROUNDS:
                found = await measure_files(contender, size_bytes=size_bytes, count=max(2, round(count * scale)))
                for label, result in found.items():
                    best = results.setdefault(label, {}).setdefault(contender.name, result)
                    results[label][contender.name] = min(best, result, key=lambda one: one.cpu_ms)
        for contender in contenders:
            for label, result in (await measure_pictures(contender, pictures)).items():
                results.setdefault(label, {})[contender.name] = result
    return results


def print_table(results: dict[str, dict[str, Result]]) -> None:
    """Prints what each thing cost, as a table of Markdown."""
    print("| one | server | CPU of the server | CPU of PostgreSQL | elapsed |")
    print("|---|---|---:|---:|---:|")
    for label, by_server in results.items():
        for name, result in by_server.items():
            figures = [f"{value:,.2f} ms" for value in (result.server_ms, result.database_ms, result.elapsed_ms)]
            print(f"| {label} | {name} | {' | '.join(figures)} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.media", description=__doc__)
    parser.add_argument("--synapse-python", type=Path, help="a Python with matrix-synapse[postgres]; none: ours alone")
    parser.add_argument("--scale", type=float, default=1.0, help="how much is done (default 1)")
    found = parser.parse_args(arguments)
    python = None if found.synapse_python is None else str(found.synapse_python.absolute())
    with place() as where:
        print_table(asyncio.run(measure_all(where, python, scale=found.scale)))


if __name__ == "__main__":
    main()
