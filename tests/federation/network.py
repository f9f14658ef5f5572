"""The network between the servers of a test: it can cut, delay, lose and repeat what one server asks another."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from yarl import URL

from homeserver.config.schema import FederationConfig
from homeserver.core.ids import ServerName
from homeserver.net.addresses import AddressPolicy
from homeserver.net.errors import ConnectionLost, NotConnected
from homeserver.net.http_client import CallLimits, HttpClient, OpenAnswer, OutgoingRequest
from homeserver.net.tls import client_tls


@dataclass(kw_only=True)
class Line:
    """What one server asks another goes over this.

    Attributes:
        is_cut: no connection is made.
        delay_seconds_max: how long a request may be on its way; each takes its own time, so they overtake each other.
        lose_requests, lose_answers: how probable it is that a request does not arrive; or that it does, and the answer
            does not.
        repeat: how probable it is that a request arrives twice.
        asked: how many requests were sent over it.
    """

    is_cut: bool = False
    delay_seconds_max: float = 0.0
    lose_requests: float = 0.0
    lose_answers: float = 0.0
    repeat: float = 0.0
    asked: int = 0


@dataclass
class Network:
    """The lines between servers, by who asks and who is asked. A line that nobody has touched is perfect."""

    random: Random = field(default_factory=lambda: Random(0))
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)

    def line(self, origin: str, destination: str) -> Line:
        """The line from one server to another; the way back is a line of its own."""
        return self.lines.setdefault((origin, destination), Line())

    def set(self, servers: Iterable[str], **changes: Any) -> None:
        """Changes all lines among some servers."""
        names = list(servers)
        for origin in names:
            for destination in names:
                for name, value in changes.items():
                    setattr(self.line(origin, destination), name, value)

    def cut(self, some: Iterable[str], others: Iterable[str]) -> None:
        """Cuts all lines between servers on two sides."""
        self._between(some, others, is_cut=True)

    def mend(self, some: Iterable[str], others: Iterable[str]) -> None:
        """Mends all lines between servers on two sides."""
        self._between(some, others, is_cut=False)

    def _between(self, some: Iterable[str], others: Iterable[str], *, is_cut: bool) -> None:
        far = list(others)
        for near in some:
            for other in far:
                self.line(near, other).is_cut = is_cut
                self.line(other, near).is_cut = is_cut

    def client_of(self, server_name: ServerName) -> Callable[[FederationConfig], HttpClient]:
        """What makes the HTTP client of a server, for `compose`."""

        def connect(config: FederationConfig) -> HttpClient:
            policy = AddressPolicy(blocklist=config.ip_range_blocklist, allowlist=config.ip_range_allowlist)
            tls = client_tls(ca_file=config.ca_file, verify=config.verify_certificates)
            return _Connected(self, server_name, policy=policy, tls=tls)

        return connect


class _Connected(HttpClient):
    """A client whose requests pass through the network."""

    def __init__(self, network: Network, origin: ServerName, **means: Any) -> None:
        super().__init__(**means)
        self._network = network
        self._origin = origin

    @asynccontextmanager
    async def open(self, request: OutgoingRequest, limits: CallLimits) -> AsyncIterator[OpenAnswer]:
        url = URL(request.url, encoded=True)
        destination, random = f"{url.host}:{url.port}", self._network.random
        line = self._network.line(self._origin, destination)
        line.asked += 1
        if line.delay_seconds_max:
            await asyncio.sleep(random.uniform(0, line.delay_seconds_max))
        if line.is_cut:
            raise NotConnected("The line is cut")
        if random.random() < line.lose_requests:
            raise ConnectionLost("The request was lost")
        if random.random() < line.repeat:
            async with super().open(request, limits) as answer:
                await answer.read()
        async with super().open(request, limits) as answer:
            if self._network.line(self._origin, destination).is_cut or random.random() < line.lose_answers:
                await answer.read()
                raise ConnectionLost("The answer was lost")
            yield answer
