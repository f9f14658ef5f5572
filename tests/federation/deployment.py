"""Several whole servers in one process, each with a database of its own, that talk over TLS on this machine.

    async with running_deployment(databases, authority, local_certificate) as deployment:
        one, two = await deployment.start(2)
        async with one.user("alice") as alice, two.user("bob") as bob:
            ...

Each is composed as in production and served by the real listeners; only its HTTP client passes through `Network`, which
can cut and disturb the lines between servers. A server can be stopped and started again on its database.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from homeserver.config.schema import (
    Config,
    FederationConfig,
    LimitsConfig,
    ListenerConfig,
    PasswordsConfig,
    RateLimitsConfig,
    RegistrationConfig,
)
from homeserver.config.values import Secret
from homeserver.core.clock import Clock
from homeserver.core.ids import ServerName
from homeserver.runtime.application import Application
from homeserver.runtime.clock import SystemClock
from homeserver.runtime.compose import compose
from homeserver.runtime.listeners import Listener, bind_all, close_all
from homeserver.runtime.server import serve
from tests.federation.certificates import CertificateAuthority, IssuedCertificate
from tests.federation.network import Network
from tests.real_client import Client, new_user
from tests.waiting import wait_until

NewDatabase = Callable[[], AbstractAsyncContextManager[str]]
"""Makes a migrated database, and drops it at the end of the block."""

LIMITS = LimitsConfig(shutdown_timeout_ms=2_000)


@dataclass(kw_only=True)
class Homeserver:
    """A server of a deployment.

    Attributes:
        name: `localhost:PORT`; other servers reach it there.
        url: where clients reach it, without TLS.
        application: what it is made of, while it runs.
    """

    config: Config
    clock: Clock
    network: Network
    application: Application | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> ServerName:
        """Its server name."""
        return self.config.server_name

    @property
    def url(self) -> str:
        """Where its clients find it."""
        return f"http://127.0.0.1:{self.config.listeners[1].port}"

    @property
    def trust(self) -> ssl.SSLContext:
        """For whoever speaks to it as another server would."""
        return ssl.create_default_context(cafile=str(self.config.federation.ca_file))

    def user(self, localpart: str) -> AbstractAsyncContextManager[Client]:
        """A client of a new user."""
        return new_user(self.url, localpart)

    def launch(self, group: asyncio.TaskGroup, listeners: tuple[Listener, ...] | None = None) -> None:
        """Serves in a task of its own until `stop`."""
        self._stop, self._ended = asyncio.Event(), asyncio.Event()
        group.create_task(self._run(listeners))

    async def _run(self, listeners: tuple[Listener, ...] | None) -> None:
        bound = listeners or bind_all(self.config.listeners)
        try:
            make_http_client = self.network.client_of(self.name)
            async with compose(self.config, self.clock, make_http_client=make_http_client) as application:
                self.application = application
                await serve(application, listeners=bound, limits=self.config.limits, stop=self._stop)
        finally:
            self.application = None
            self._ended.set()
            close_all(bound)

    async def stop(self) -> None:
        """Stops it as SIGTERM would."""
        self._stop.set()
        await self._ended.wait()

    async def until_ready(self) -> None:
        """Waits until it listens."""
        await wait_until(self._is_listening)

    async def _is_listening(self) -> bool:
        assert not self._ended.is_set(), "the server has failed"
        try:
            for listener in self.config.listeners:
                _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
                writer.transport.abort()
        except OSError:
            return False
        return True


@dataclass(kw_only=True)
class Deployment:
    """Servers, and the network between them."""

    network: Network
    clock: Clock
    servers: list[Homeserver] = field(default_factory=list)
    _authority: CertificateAuthority
    _certificate: IssuedCertificate
    _new_database: NewDatabase
    _folder: Path
    _stack: AsyncExitStack
    _group: asyncio.TaskGroup

    async def start(
        self, count: int = 1, *, host: str = "localhost", federation: dict[str, Any] | None = None, **changes: Any
    ) -> list[Homeserver]:
        """Starts servers.

        Args:
            count: how many.
            host: what their names begin with: `localhost`, or the address `127.0.0.1`.
            federation: settings of federation, beside those that are needed here.
            changes: other sections of their configuration.
        """
        started = [await self._new_server(host, federation, changes) for _ in range(count)]
        for server in started:
            await server.until_ready()
        return started

    async def restart(self, server: Homeserver) -> None:
        """Starts a server again that was stopped."""
        server.launch(self._group)
        await server.until_ready()

    async def _new_server(self, host: str, federation: dict[str, Any] | None, changes: dict[str, Any]) -> Homeserver:
        url = await self._stack.enter_async_context(self._new_database())
        # The ports are drawn first, for one is a part of the server's name; the sockets stay bound.
        tls, plain = (
            ListenerConfig(port=0, resources=("federation", "media"), tls=self._certificate.tls_config),
            ListenerConfig(port=0, resources=("client", "media", "admin", "health", "metrics")),
        )
        bound = bind_all([tls, plain])
        listeners = tuple(
            Listener(replace(each.config, port=each.sockets[0].getsockname()[1]), each.bound) for each in bound
        )
        name = ServerName.parse(f"{host}:{listeners[0].config.port}")
        base = Config(server_name=name)
        config = replace(
            base,
            data_dir=self._folder / name.replace(":", "-"),
            listeners=tuple(listener.config for listener in listeners),
            database=replace(base.database, url=Secret(url), pool_size_max=6),
            registration=RegistrationConfig(enabled=True, require_verification=False),
            passwords=PasswordsConfig(time_cost=1, memory_cost_kib=8),
            rate_limits=RateLimitsConfig(enabled=False),
            limits=LIMITS,
            federation=FederationConfig(ca_file=self._authority.ca_file, ip_range_blocklist=(), **(federation or {})),
            **changes,
        )
        server = Homeserver(config=config, clock=self.clock, network=self.network)
        self.servers.append(server)
        server.launch(self._group, listeners)
        return server


@asynccontextmanager
async def running_deployment(
    new_database: NewDatabase,
    authority: CertificateAuthority,
    certificate: IssuedCertificate,
    folder: Path,
    *,
    clock: Clock | None = None,
    network: Network | None = None,
) -> AsyncIterator[Deployment]:
    """A deployment without servers yet; those that run at the end of the block are stopped."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        deployment = Deployment(
            network=network or Network(),
            clock=clock or SystemClock(),
            _authority=authority,
            _certificate=certificate,
            _new_database=new_database,
            _folder=folder,
            _stack=stack,
            _group=group,
        )
        try:
            yield deployment
        finally:
            for server in deployment.servers:
                await server.stop()
