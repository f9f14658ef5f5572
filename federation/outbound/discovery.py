"""Finds out where the server of a name is, in the six steps of the specification.

https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from federation.outbound.srv import SrvAnswer, SrvLookup, in_order
from federation.outbound.target import Target
from federation.outbound.well_known import LIFETIME_SECONDS_MAX, WellKnownFetcher
from homeserver.core.clock import Clock
from homeserver.core.errors import RemoteUnavailable
from homeserver.core.ids import ServerName
from homeserver.services.single_flight import SingleFlight
from storage.bounded_cache import BoundedCache

PORT: Final = 8448
SERVICES: Final = ("_matrix-fed._tcp", "_matrix._tcp")
"""The second is deprecated, and asked only if the first does not exist."""

CACHED_MAX: Final = 10_000
FAILURE_SECONDS: Final = 60.0
FAILURE_SECONDS_MAX: Final = 3_600.0
SRV_FAILURE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Known:
    """What a domain has said, and until when it is believed (seconds of the monotonic clock).

    Attributes:
        said_at: when it said so; later failures to ask it again do not change that.
        failures: how often in a row it could not be asked.
    """

    delegated: ServerName | None
    said_at: float
    expires: float
    failures: int = 0


class ServerDiscovery:
    """Remembers what it has found, within bounds of number and time."""

    def __init__(self, *, well_known: WellKnownFetcher, srv: SrvLookup, clock: Clock) -> None:
        self._well_known = well_known
        self._srv = srv
        self._clock = clock
        self._known: BoundedCache[str, _Known] = BoundedCache("well_known", weight_max=CACHED_MAX)
        self._records: BoundedCache[str, tuple[SrvAnswer, float]] = BoundedCache("srv", weight_max=CACHED_MAX)
        self._asking: SingleFlight[str, ServerName | None] = SingleFlight()
        self._looking_up: SingleFlight[str, SrvAnswer] = SingleFlight()

    async def targets(self, server_name: ServerName) -> Sequence[Target]:
        """Where a server may be, the place to try first at the front; at least one.

        Raises:
            RemoteUnavailable: its domain says that there is no such service.
        """
        if _is_ip_literal(server_name.host) or server_name.port is not None:
            return (_direct(server_name),)  # steps 1 and 2
        delegated = await self._delegated(server_name.host)
        if delegated is None:
            return await self._by_records(server_name)  # steps 4 to 6
        if _is_ip_literal(delegated.host) or delegated.port is not None:
            return (_direct(delegated),)  # steps 3.1 and 3.2
        return await self._by_records(delegated)  # steps 3.3 to 3.5

    async def _by_records(self, name: ServerName) -> Sequence[Target]:
        """The places that SRV records name; without any, the host itself. The certificate is always for the name."""
        for service in SERVICES:
            answer = await self._service(f"{service}.{name}")
            if answer.records:
                found = [record for record in in_order(answer.records) if record.host not in ("", ".")]
                if not found:
                    raise RemoteUnavailable(f"The domain {name} has no homeserver")
                return [Target(record.host, record.port, name, name) for record in found]
        return (_direct(name),)

    async def _delegated(self, host: str) -> ServerName | None:
        known = self._known.get(host)
        if known is not None and known.expires > self._clock.monotonic():
            return known.delegated
        return await self._asking.run(host, lambda: self._ask(host))

    async def _ask(self, host: str) -> ServerName | None:
        before = self._known.get(host)
        said = await self._well_known.fetch(host)
        now = self._clock.monotonic()
        if said is not None:
            known = _Known(said.delegated, said_at=now, expires=now + said.lifetime_seconds)
        else:
            failures = 1 if before is None else before.failures + 1
            pause = min(FAILURE_SECONDS * 2.0 ** min(failures - 1, 10), FAILURE_SECONDS_MAX)
            # Where a server was yesterday it most likely still is, though its web server is away.
            recent = before is not None and now - before.said_at < LIFETIME_SECONDS_MAX
            delegated = before.delegated if before is not None and recent else None
            said_at = before.said_at if before is not None else now - LIFETIME_SECONDS_MAX
            known = _Known(delegated, said_at=said_at, expires=now + pause, failures=failures)
        self._known.put(host, known)
        return known.delegated

    async def _service(self, name: str) -> SrvAnswer:
        found = self._records.get(name)
        if found is not None and found[1] > self._clock.monotonic():
            return found[0]
        return await self._looking_up.run(name, lambda: self._look_up(name))

    async def _look_up(self, name: str) -> SrvAnswer:
        """Asks the DNS; if it does not answer, there are no records for a minute."""
        answer = await self._srv.records(name) or SrvAnswer((), SRV_FAILURE_SECONDS)
        self._records.put(name, (answer, self._clock.monotonic() + answer.ttl_seconds))
        return answer


def _direct(name: ServerName) -> Target:
    """The host of a name itself; its certificate is for the host, or for the address if it is one."""
    host = name.host
    return Target(host, PORT if name.port is None else name.port, name, None if _is_ip_literal(host) else host)


def _is_ip_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
