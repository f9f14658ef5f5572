"""A whole server in this process, made of its real parts, and clients that speak to it without a socket."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from quart import Quart

from client_api.auth import client_authenticator
from homeserver.config.schema import Config, DatabaseConfig, PasswordsConfig, RateLimitsConfig, RegistrationConfig
from homeserver.config.values import Secret
from homeserver.core.errors import Unauthorized
from homeserver.core.ids import ServerName
from homeserver.runtime.accounts import Accounts, Means, compose_accounts
from homeserver.runtime.application import BackgroundTask
from homeserver.runtime.compose import compose
from homeserver.runtime.other_servers import OtherServers, Remotes
from homeserver.services.accounts.attempts import LocalAttemptCounts
from homeserver.services.ports import NoRemoteProfiles
from homeserver.services.stream.hub import Hub
from homeserver.web.dispatch import Dispatcher, prepare
from homeserver.web.endpoint import Endpoint, RateLimit, Request, Section
from homeserver.web.http import HttpSettings, mount
from homeserver.web.rate_limits import LocalBuckets, Rate, RateLimits
from homeserver.web.write_tasks import WriteTasks
from storage.bus.base import Bus
from storage.bus.memory import MemoryBus
from storage.database import Database
from tests.fast_clock import FastClock
from tests.web.harness import Reply, asgi_call

SERVER_NAME = ServerName("test")
PASSWORD = "correct horse battery staple"

CONFIG = Config(
    server_name=SERVER_NAME,
    registration=RegistrationConfig(enabled=True, require_verification=False, shared_secret=Secret("shared")),
    # Hashes that cost next to nothing.
    passwords=PasswordsConfig(time_cost=1, memory_cost_kib=8),
    rate_limits=RateLimitsConfig(enabled=False),
)


@dataclass
class Client:
    """A client with a session, or without one."""

    server: "Site"
    user_id: str = ""
    device_id: str = ""
    token: str | None = None
    refresh_token: str | None = None
    ip: str = "192.0.2.1"

    @property
    def localpart(self) -> str:
        """The user's name without sigil and server."""
        return self.user_id[1:].partition(":")[0]

    async def call(self, method: str, path: str, json: Any = None, **query: Any) -> Reply:
        """Sends a request with this client's token."""
        return await self.server.request(method, path, token=self.token, json=json, query=query, ip=self.ip)

    async def get(self, path: str, **query: Any) -> Any:
        """The body of a GET that must succeed."""
        return _succeeded(await self.call("GET", path, **query))

    async def put(self, path: str, json: Any) -> Any:
        """The answer to a PUT that must succeed."""
        return _succeeded(await self.call("PUT", path, json))

    async def post(self, path: str, json: Any = None) -> Any:
        """The answer to a POST that must succeed."""
        return _succeeded(await self.call("POST", path, {} if json is None else json))

    async def delete(self, path: str, json: Any = None) -> Any:
        """The answer to a DELETE that must succeed."""
        return _succeeded(await self.call("DELETE", path, json))


@dataclass(kw_only=True)
class Site:
    """A running server, as its clients see it."""

    config: Config
    clock: FastClock
    app: Quart
    headers: dict[str, str] = field(default_factory=lambda: {"host": "test", "user-agent": "tests"})

    async def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        json: Any = None,
        body: bytes | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        ip: str = "192.0.2.1",
    ) -> Reply:
        """Sends a request. A path without a leading `/_` or `/.` lies below `/_matrix/client/v3`."""
        if not path.startswith(("/_", "/.")):
            path = f"/_matrix/client/v3{path}"
        sent = {**self.headers, **(headers or {})}
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        content = body if body is not None else b"" if json is None else orjson.dumps(json)
        raw_path = quote(path, safe="/%:@!$&'()*+,;=~-._")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": raw_path.encode(),
            "query_string": urlencode(query or {}, doseq=True).encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items()],
            "client": (ip, 1234),
            "scheme": "http",
            "extensions": {},
        }
        return await asgi_call(self.app, scope, content)

    async def ask_as(self, origin: str, method: str, path: str, json: Any = None, **query: Any) -> Reply:
        """Sends a request of another server, believed to be its own. The path is absolute."""
        headers = {"authorization": f"X-Matrix origin={origin}"}
        return await self.request(method, path, json=json, query=query, headers=headers)

    def anonymous(self, ip: str = "192.0.2.1") -> Client:
        """A client without a session."""
        return Client(self, ip=ip)

    def client(self, answer: Mapping[str, Any]) -> Client:
        """A client with the session that a login or a registration has answered."""
        return Client(
            self,
            user_id=answer["user_id"],
            device_id=answer["device_id"],
            token=answer["access_token"],
            refresh_token=answer.get("refresh_token"),
        )

    async def register(self, localpart: str, *, password: str = PASSWORD, **members: Any) -> Client:
        """A new user."""
        body = {"username": localpart, "password": password, "auth": {"type": "m.login.dummy"}, **members}
        return self.client(_succeeded(await self.request("POST", "/register", json=body)))

    async def login(self, user: str, *, password: str = PASSWORD, **members: Any) -> Client:
        """A new session of a user."""
        return self.client(
            _succeeded(await self.request("POST", "/login", json=password_login(user, password, **members)))
        )


@dataclass(kw_only=True)
class Server(Site):
    """A server with accounts and nothing else, and what it is made of."""

    db: Database
    bus: MemoryBus
    hub: Hub
    accounts: Accounts

    async def register_admin(self, localpart: str = "admin") -> Client:
        """A new administrator."""
        client = await self.register(localpart)
        async with self.db.connection() as conn:
            await conn.execute("UPDATE users SET is_admin = true WHERE user_id = $1", client.user_id)
        return await self.login(localpart)


def password_login(user: str, password: str = PASSWORD, **members: Any) -> dict[str, Any]:
    """The body of a login."""
    identifier = {"type": "m.id.user", "user": user}
    return {"type": "m.login.password", "identifier": identifier, "password": password, **members}


def password_auth(user: str, password: str = PASSWORD, **members: Any) -> dict[str, Any]:
    """The `auth` of a request, for the stage m.login.password."""
    return password_login(user, password, **members)


def _succeeded(reply: Reply) -> Any:
    assert reply.status in (200, 201), reply.body
    return reply.json


def refused(reply: Reply, status: int, errcode: str) -> Any:
    """Checks that a request was refused; the body of the error."""
    assert (reply.status, reply.json.get("errcode")) == (status, errcode), reply.body
    assert isinstance(reply.json["error"], str)
    return reply.json


def with_changes(config: Config, **sections: Mapping[str, Any]) -> Config:
    """A configuration of which single keys of sections are other ones."""
    return replace(config, **{name: replace(getattr(config, name), **keys) for name, keys in sections.items()})


@asynccontextmanager
async def running_server(
    database_url: str,
    config: Config = CONFIG,
    *,
    clock: FastClock | None = None,
    more_sections: Sequence[Section] = (),
) -> AsyncIterator[Server]:
    """A server on a database; several may run on one."""
    clock = clock or FastClock(speed=1)
    async with Database(database_url, DatabaseConfig(pool_size_max=5)) as db, WriteTasks(shutdown_seconds=5) as writes:
        bus = MemoryBus()
        hub = Hub(db=db, bus=bus, clock=clock, streams=())
        accounts = compose_accounts(
            Means(config=config, db=db, bus=bus, clock=clock),
            attempt_counts=LocalAttemptCounts(clock),
            remote_profiles=NoRemoteProfiles(),
        )
        dispatcher = Dispatcher(
            authenticate_client=client_authenticator(accounts.authentication),
            authenticate_server=_no_servers,
            rate_limits=_rate_limits(config, clock),
            writes=writes,
            clock=clock,
        )
        app = Quart("test", static_folder=None)
        operations = prepare([*accounts.sections, *accounts.admin_sections, *more_sections])
        mount(app, operations=operations, dispatcher=dispatcher, clock=clock, settings=HttpSettings())
        async with asyncio.TaskGroup() as background:
            running = [background.create_task(hub.run()), background.create_task(bus.run())]
            yield Server(config=config, db=db, bus=bus, hub=hub, clock=clock, accounts=accounts, app=app)
            for task in running:
                task.cancel()


@asynccontextmanager
async def composed_server(
    database_url: str,
    config: Config = CONFIG,
    *,
    clock: FastClock | None = None,
    bus: Bus | None = None,
    remotes: Remotes | None = None,
) -> AsyncIterator[Site]:
    """A whole server on a database, composed as in production; several may run on one, and share a bus.

    No request leaves it. `remotes` are other servers by value, as far as a test has them, and `Site.ask_as` makes
    requests of other servers.
    """
    clock = clock or FastClock(speed=1)
    others = OtherServers(remotes=remotes or Remotes(), authenticate=believe_origin)
    with tempfile.TemporaryDirectory() as folder:
        database = replace(config.database, url=Secret(database_url), pool_size_max=8)
        config = replace(config, data_dir=Path(folder), database=database)
        async with (
            compose(config, clock, bus=bus, other_servers=others) as application,
            asyncio.TaskGroup() as background,
        ):
            app = Quart("test", static_folder=None)
            mount(
                app,
                operations=prepare(
                    section
                    for name in ("client", "media", "admin", "federation")
                    for section in application.sections[name]
                ),
                dispatcher=application.dispatcher,
                clock=clock,
                settings=HttpSettings(),
            )
            running = [background.create_task(_run(task)) for task in application.background]
            yield Site(config=config, clock=clock, app=app)
            for task in running:
                task.cancel()


async def _run(task: BackgroundTask) -> None:
    await task.run()


def _rate_limits(config: Config, clock: FastClock) -> RateLimits:
    limits = config.rate_limits
    rates = {kind: getattr(limits, kind.value) for kind in RateLimit}
    return RateLimits(
        store=LocalBuckets(clock),
        rates={kind: Rate(per_second=rate.per_second, burst=rate.burst) for kind, rate in rates.items()},
        enabled=limits.enabled,
    )


async def _no_servers(_: Endpoint, __: Request) -> Request:
    raise Unauthorized


async def believe_origin(endpoint: Endpoint, request: Request) -> Request:
    """Takes a request for that of the server that `Authorization: X-Matrix origin=name` names, without a signature."""
    scheme, _, origin = request.headers.get("authorization", "").partition(" origin=")
    if scheme != "X-Matrix":
        raise Unauthorized("The request is not signed")
    return replace(request, origin=ServerName.parse(origin))
