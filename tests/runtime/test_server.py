"""Serving: each listener has its resources, stopping lets requests finish, health tells the truth."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from homeserver.config.schema import DatabaseConfig, LimitsConfig, ListenerConfig, Resource, TlsConfig
from homeserver.core.errors import UnknownToken
from homeserver.runtime import health, metrics
from homeserver.runtime.application import Application, BackgroundTask
from homeserver.runtime.clock import SystemClock
from homeserver.runtime.listeners import Listener, ListenError, bind_all
from homeserver.runtime.server import serve
from homeserver.web.dispatch import Dispatcher
from homeserver.web.endpoint import Access, Endpoint, Request, Response, Section
from homeserver.web.rate_limits import LocalBuckets, RateLimits
from homeserver.web.write_tasks import WriteTasks
from storage.database import Database
from storage.embedded import EmbeddedPostgres
from storage.migrate import migrate
from tests.waiting import wait_until

LIMITS = LimitsConfig(shutdown_timeout_ms=5_000)


def answering(name: str) -> Section:
    """A section with one endpoint that answers its name."""
    section = Section(name)

    @section.endpoint("GET", f"/_matrix/{name}", access=Access.PUBLIC, operation=name)
    async def answer(_: Request) -> Response:
        return Response({"name": name})

    return section


class Slow:
    """An endpoint that answers when it is let."""

    def __init__(self, *, method: str = "GET") -> None:
        self.called = asyncio.Event()
        self.let = asyncio.Event()
        self.finished = False
        self.section = Section("Slow")
        self.section.endpoint(method, "/_matrix/slow", access=Access.PUBLIC, operation="slow")(self._answer)

    async def _answer(self, _: Request) -> Response:
        self.called.set()
        await self.let.wait()
        self.finished = True
        return Response({"slow": True})


async def refuse(_: Endpoint, __: Request) -> Request:
    raise UnknownToken


class Running:
    """A server that runs in this process."""

    def __init__(self, listeners: Sequence[Listener], stop: asyncio.Event, task: asyncio.Task[None]) -> None:
        self.urls = [url for listener in listeners for url in listener.urls]
        self.stop = stop
        self.task = task


@asynccontextmanager
async def running(
    sections: Mapping[Resource, Sequence[Section]],
    *configs: ListenerConfig,
    limits: LimitsConfig = LIMITS,
    background: Sequence[BackgroundTask] = (),
) -> AsyncIterator[Running]:
    """Serves sections on listeners until the block ends."""
    clock, stop = SystemClock(), asyncio.Event()
    listeners = bind_all(configs or (ListenerConfig(port=0, resources=tuple(sections)),))
    async with WriteTasks(shutdown_seconds=limits.shutdown_timeout_ms / 1000) as writes:
        dispatcher = Dispatcher(
            authenticate_client=refuse,
            authenticate_server=refuse,
            rate_limits=RateLimits(store=LocalBuckets(clock), rates={}, enabled=False),
            writes=writes,
            clock=clock,
        )
        application = Application(sections=sections, dispatcher=dispatcher, clock=clock, background=background)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(serve(application, listeners=listeners, limits=limits, stop=stop))
            server = Running(listeners, stop, task)
            await wait_until(lambda: all_listen(server))
            try:
                yield server
            finally:
                stop.set()
    for listener in listeners:
        listener.close()


async def all_listen(server: Running) -> bool:
    for url in server.urls:
        host, _, port = url.partition("://")[2].rpartition(":")
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
    return True


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def status_of(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(url) as response:
        await response.read()
        return response.status


async def test_a_listener_serves_its_resources_and_nothing_else(http: aiohttp.ClientSession) -> None:
    sections: dict[Resource, list[Section]] = {
        "client": [answering("client")],
        "federation": [answering("federation")],
        "metrics": [metrics.section(lambda: None)],
    }
    first = ListenerConfig(port=0, resources=("client",))
    second = ListenerConfig(port=0, resources=("federation", "metrics"))
    async with running(sections, first, second) as server:
        one, other = server.urls
        assert await status_of(http, f"{one}/_matrix/client") == 200
        assert await status_of(http, f"{one}/_matrix/federation") == 404
        assert await status_of(http, f"{one}/metrics") == 404
        assert await status_of(http, f"{other}/_matrix/federation") == 200
        assert await status_of(http, f"{other}/_matrix/client") == 404
        async with http.get(f"{other}/metrics") as response:
            assert response.status == 200
            assert response.headers["Content-Type"].startswith("text/plain")
            assert "heliograph_requests_total" in await response.text()


async def test_a_port_that_is_taken_is_told() -> None:
    (taken,) = bind_all([ListenerConfig(port=0)])
    taken.sockets[0].listen()
    port = taken.sockets[0].getsockname()[1]
    with pytest.raises(ListenError, match=f"127.0.0.1 port {port}"):
        bind_all([ListenerConfig(port=0), ListenerConfig(port=port)])
    taken.close()


async def test_a_request_finishes_after_the_stop(http: aiohttp.ClientSession) -> None:
    slow = Slow()
    async with running({"client": [slow.section]}) as server, asyncio.TaskGroup() as group:
        answer = group.create_task(status_of(http, f"{server.urls[0]}/_matrix/slow"))
        await slow.called.wait()
        server.stop.set()
        await wait_until(lambda: refused(server.urls[0]))
        slow.let.set()
        assert await answer == 200


async def refused(url: str) -> bool:
    host, _, port = url.partition("://")[2].rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_a_request_that_takes_too_long_is_cut_off(http: aiohttp.ClientSession) -> None:
    slow = Slow()
    limits = replace(LIMITS, shutdown_timeout_ms=100)
    async with running({"client": [slow.section]}, limits=limits) as server, asyncio.TaskGroup() as group:
        answer = group.create_task(_outcome(status_of(http, f"{server.urls[0]}/_matrix/slow")))
        await slow.called.wait()
        server.stop.set()
        await asyncio.wait_for(server.task, 5)
        assert not slow.finished
        slow.let.set()
        await answer


async def _outcome(work: "asyncio._CoroutineLike[int]") -> int | str:
    try:
        return await work
    except aiohttp.ClientError:
        return "cut off"


async def test_background_tasks_run_until_the_requests_have_ended(http: aiohttp.ClientSession) -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    slow = Slow()
    tasks = [BackgroundTask("work", work)]
    async with running({"client": [slow.section]}, background=tasks) as server, asyncio.TaskGroup() as group:
        answer = group.create_task(status_of(http, f"{server.urls[0]}/_matrix/slow"))
        await slow.called.wait()
        server.stop.set()
        await wait_until(lambda: refused(server.urls[0]))
        assert not ended.is_set()
        slow.let.set()
        assert await answer == 200
        await server.task
        assert ended.is_set()


async def test_a_background_task_that_fails_ends_the_server() -> None:
    broken = asyncio.Event()

    async def work() -> None:
        await broken.wait()
        raise RuntimeError("broken")

    with pytest.RaisesGroup(RuntimeError, allow_unwrapped=False, flatten_subgroups=True):
        async with running({"client": [answering("client")]}, background=[BackgroundTask("work", work)]) as server:
            broken.set()
            await asyncio.wait([server.task])


async def test_a_listener_speaks_tls(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    certificate, private_key = make_certificate(tmp_path)
    listener = ListenerConfig(
        port=0, resources=("client",), tls=TlsConfig(certificate=certificate, private_key=private_key)
    )
    async with running({"client": [answering("client")]}, listener) as server:
        trusting = ssl.create_default_context(cafile=str(certificate))
        async with http.get(f"{server.urls[0]}/_matrix/client", ssl=trusting) as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientError):
            await status_of(http, f"{server.urls[0].replace('https', 'http')}/_matrix/client")


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "tls.crt", folder / "tls.key"


async def test_every_listener_tells_its_health(http: aiohttp.ClientSession, database_url: str) -> None:
    """Who balances load asks each port that it sends requests to, whatever is served there."""
    async with Database(database_url, DatabaseConfig()) as db:
        sections: dict[Resource, Sequence[Section]] = {"federation": [], "health": [health.section(db)]}
        async with running(sections, ListenerConfig(port=0, resources=("federation",))) as server:
            assert await status_of(http, f"{server.urls[0]}/health") == 200


async def test_health_follows_the_database(http: aiohttp.ClientSession, cluster: EmbeddedPostgres) -> None:
    url = cluster.start()
    await migrate(url)
    settings = DatabaseConfig(acquire_timeout_ms=500)
    async with Database(url, settings) as db, running({"health": [health.section(db)]}) as server:
        health_url = f"{server.urls[0]}/health"
        assert await status_of(http, health_url) == 200
        cluster.stop()
        assert await status_of(http, health_url) == 503
        cluster.start()

        async def is_well() -> bool:
            return await status_of(http, health_url) == 200

        await wait_until(is_well)
        await migrate(url, to=1)
        async with http.get(health_url) as response:
            assert response.status == 503
            assert "not migrated" in (await response.json())["reason"]
