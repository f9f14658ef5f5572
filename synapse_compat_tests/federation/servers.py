"""A Synapse and a Heliograph that meet over TLS on this machine, each behind a line that can be cut.

Their names are `localhost:PORT`, the port being that of the line. Both trust the authority of the tests, connect to
this machine, and try again soon what has failed.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

from homeserver.config.schema import (
    Config,
    FederationConfig,
    ListenerConfig,
    MediaConfig,
    PasswordsConfig,
    RateLimitsConfig,
    RegistrationConfig,
)
from homeserver.config.values import Secret
from homeserver.core.clock import Clock
from homeserver.core.ids import ServerName
from homeserver.core.signing import SigningKey
from homeserver.runtime.clock import SystemClock
from homeserver.runtime.listeners import Listener, bind_all
from homeserver.runtime.signing_key import new_signing_key
from synapse_compat_tests.federation.line import Line, line_to
from synapse_compat_tests.synapse import SynapseProcess
from tests.fast_clock import FastClock
from tests.federation.certificates import CertificateAuthority, IssuedCertificate
from tests.federation.deployment import LIMITS, Homeserver
from tests.federation.network import Network
from tests.processes import free_port
from tests.real_client import Client, new_user

# In milliseconds, where they are times.
RETRIES: Final = {
    "destination_min_retry_interval": 200,
    "destination_max_retry_interval": 1_000,
    "max_long_retries": 1,
    "max_long_retry_delay": 100,
    "max_short_retries": 1,
    "max_short_retry_delay": 100,
}
NO_LIMIT: Final = {
    "window_size": 1000,
    "sleep_limit": 1_000_000,
    "sleep_delay": 1,
    "reject_limit": 1_000_000,
    "concurrent": 100,
}
LOGGING: Final = {
    "version": 1,
    "formatters": {"line": {"format": "%(asctime)s %(name)s %(levelname)s %(request)s %(message)s"}},
    "filters": {"context": {"()": "synapse.logging.context.LoggingContextFilter"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["context"]}},
    "root": {"level": "INFO", "handlers": ["console"]},
    "disable_existing_loggers": False,
}


class Side(Protocol):
    """One of both servers: a Synapse or a Heliograph."""

    line: Line

    @property
    def name(self) -> str:
        """Its server name."""

    def user(self, localpart: str) -> AbstractAsyncContextManager[Client]:
        """A client of a new user."""

    async def stop(self) -> None:
        """Stops it as an operator would."""

    async def start(self) -> None:
        """Starts it, again if it was stopped, and waits until it is there."""


@dataclass(kw_only=True)
class SynapseSide:
    """A Synapse."""

    process: SynapseProcess
    line: Line

    @property
    def name(self) -> str:
        """Its server name."""
        return self.process.server_name

    def user(self, localpart: str) -> AbstractAsyncContextManager[Client]:
        """A client of a new user."""
        return new_user(self.process.url, localpart)

    async def stop(self) -> None:
        """Stops it."""
        await self.process.stop()

    async def start(self) -> None:
        """Starts it."""
        await self.process.start()

    async def change_key(self) -> None:
        """Stops it, gives it a new signing key, the old one being known as such, and starts it again."""
        await self.stop()
        config_file, key_file = (self.process.folder / name for name in ("homeserver.yaml", "signing.key"))
        config = json.loads(config_file.read_text())
        old, new = SigningKey.parse(key_file.read_text().strip()), new_signing_key()
        expired = {"key": old.verify_key.encode(), "expired_ts": int(time.time() * 1000)}
        config["old_signing_keys"] = {**config.get("old_signing_keys", {}), old.key_id: expired}
        config_file.write_text(json.dumps(config))
        key_file.write_text(new.format() + "\n")
        await self.start()


@dataclass(kw_only=True)
class OurSide:
    """A Heliograph, in this process."""

    homeserver: Homeserver
    line: Line
    _group: asyncio.TaskGroup
    _bound: tuple[Listener, ...] | None = field(default=None)

    @property
    def name(self) -> str:
        """Its server name."""
        return self.homeserver.name

    def user(self, localpart: str) -> AbstractAsyncContextManager[Client]:
        """A client of a new user."""
        return self.homeserver.user(localpart)

    async def stop(self) -> None:
        """Stops it."""
        await self.homeserver.stop()

    async def start(self) -> None:
        """Starts it; the first time on the ports that were drawn for it."""
        bound, self._bound = self._bound, None
        self.homeserver.launch(self._group, bound)
        await self.homeserver.until_ready()


class HastyClock(FastClock):
    """Runs ahead of the time of day, so that what is to be tried again in a minute is tried soon."""

    def __init__(self, speed: float) -> None:
        super().__init__(speed)
        self._began_ms = int(time.time() * 1000)

    def now_ms(self) -> int:
        """Milliseconds since 1970, and more and more too many."""
        return self._began_ms + int(self.monotonic() * 1000)


@asynccontextmanager
async def running_synapse(
    folder: Path, python: str, authority: CertificateAuthority, certificate: IssuedCertificate
) -> AsyncIterator[SynapseSide]:
    """A Synapse that federates, until the block ends."""
    client_port, federation_port = free_port(), free_port()
    async with line_to(federation_port) as line:
        log_config = folder / "federation-log.yaml"
        log_config.write_text(json.dumps(LOGGING))
        settings = {
            "listeners": [
                _synapse_listener(client_port, "client", tls=False),
                _synapse_listener(federation_port, "federation", tls=True),
            ],
            "tls_certificate_path": str(certificate.certificate),
            "tls_private_key_path": str(certificate.private_key),
            "federation_custom_ca_list": [str(authority.ca_file)],
            "ip_range_blacklist": [],
            "federation": RETRIES,
            "rc_federation": NO_LIMIT,
            "allow_public_rooms_over_federation": True,
            "presence": {"enabled": True},
            "log_config": str(log_config),
        }
        name = f"localhost:{line.port}"
        process = SynapseProcess(folder / "synapse", python, name, settings, port=client_port)
        side = SynapseSide(process=process, line=line)
        try:
            await side.start()
            yield side
        finally:
            await side.stop()


def _synapse_listener(port: int, resource: str, *, tls: bool) -> dict[str, Any]:
    resources = [{"names": [resource]}]
    return {"port": port, "bind_addresses": ["127.0.0.1"], "type": "http", "tls": tls, "resources": resources}


@asynccontextmanager
async def running_heliograph(
    folder: Path,
    database_url: str,
    authority: CertificateAuthority,
    certificate: IssuedCertificate,
    *,
    host: str = "localhost",
    clock: Clock | None = None,
    media: MediaConfig | None = None,
    **federation: Any,
) -> AsyncIterator[OurSide]:
    """A server of ours that federates, until the block ends.

    Args:
        folder: where its data are put.
        database_url: its database.
        authority: whom it trusts.
        certificate: what it shows others.
        host: what its name begins with: `localhost`, or the address `127.0.0.1`.
        clock: what it takes for the time.
        media: its settings of media; None for the usual ones.
        federation: settings of federation, beside those that are needed here.
    """
    bound = bind_all(
        [
            ListenerConfig(port=0, resources=("federation", "media"), tls=certificate.tls_config),
            ListenerConfig(port=0, resources=("client", "media", "admin", "health", "metrics")),
        ]
    )
    listeners = tuple(
        Listener(replace(each.config, port=each.sockets[0].getsockname()[1]), each.bound) for each in bound
    )
    async with AsyncExitStack() as stack:
        line = await stack.enter_async_context(line_to(listeners[0].config.port))
        name = ServerName.parse(f"{host}:{line.port}")
        base = Config(server_name=name)
        config = replace(
            base,
            data_dir=folder / f"heliograph-{line.port}",
            listeners=tuple(listener.config for listener in listeners),
            database=replace(base.database, url=Secret(database_url), pool_size_max=6),
            registration=RegistrationConfig(enabled=True, require_verification=False),
            passwords=PasswordsConfig(time_cost=1, memory_cost_kib=8),
            rate_limits=RateLimitsConfig(enabled=False),
            limits=LIMITS,
            media=media or MediaConfig(),
            federation=FederationConfig(ca_file=authority.ca_file, ip_range_blocklist=(), **federation),
        )
        group = await stack.enter_async_context(asyncio.TaskGroup())
        homeserver = Homeserver(config=config, clock=clock or SystemClock(), network=Network())
        side = OurSide(homeserver=homeserver, line=line, _group=group, _bound=listeners)
        await side.start()
        try:
            yield side
        finally:
            await side.stop()
