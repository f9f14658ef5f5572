"""How many wrong passwords are allowed for one account and from one address, before more attempts must wait.

An attempt is counted before the password is looked at, so that many at once count too, and taken back if it was right.
The count of one subject is kept as the time at which nothing of it is left (the "generic cell rate algorithm").
"""

import ipaddress
import math
from typing import Final, Protocol

from homeserver.config.schema import RateConfig
from homeserver.core.clock import Clock
from homeserver.core.errors import LimitExceeded
from storage.bounded_cache import BoundedCache

SUBJECTS_MAX: Final = 100_000
_IPV6_CUSTOMER_BITS: Final = 64


class AttemptCounts(Protocol):
    """Where attempts are counted."""

    async def take(self, subject: str, rate: RateConfig) -> float:
        """Counts an attempt; 0 if it may be made, else it is not counted and must wait so many seconds."""
        ...

    async def give_back(self, subject: str, rate: RateConfig) -> None:
        """Takes one counted attempt back."""
        ...


class LocalAttemptCounts:
    """Counts of this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # It holds off attackers, so that nothing of it goes for the sake of caches.
        self._empty_at: BoundedCache[str, float] = BoundedCache("login_attempts", weight_max=SUBJECTS_MAX, bytes_each=0)

    async def take(self, subject: str, rate: RateConfig) -> float:
        """Counts an attempt; see `AttemptCounts`."""
        now = self._clock.monotonic()
        interval = 1 / rate.per_second
        empty_at = max(self._empty_at.get(subject) or now, now)
        wait_seconds = empty_at - now - interval * (rate.burst - 1)
        if wait_seconds > 1e-9:
            return wait_seconds
        self._empty_at.put(subject, empty_at + interval)
        return 0.0

    async def give_back(self, subject: str, rate: RateConfig) -> None:
        """Takes one counted attempt back."""
        empty_at = self._empty_at.get(subject)
        if empty_at is not None:
            self._empty_at.put(subject, empty_at - 1 / rate.per_second)


class AttemptLimits:
    """Limits wrong passwords."""

    def __init__(self, *, counts: AttemptCounts, rate: RateConfig, enabled: bool) -> None:
        """Takes its settings; `enabled=False` lets every attempt through."""
        self._counts = counts
        self._rate = rate
        self._enabled = enabled

    async def take(self, *, account: str, ip: str) -> None:
        """Counts an attempt to open an account, which need not exist.

        Raises:
            LimitExceeded: there were too many wrong ones.
        """
        if not self._enabled:
            return
        taken: list[str] = []
        for subject in _subjects(account=account, ip=ip):
            wait_seconds = await self._counts.take(subject, self._rate)
            if wait_seconds > 0:
                for earlier in taken:
                    await self._counts.give_back(earlier, self._rate)
                raise LimitExceeded("Too many wrong passwords", retry_after_ms=math.ceil(wait_seconds * 1000))
            taken.append(subject)

    async def give_back(self, *, account: str, ip: str) -> None:
        """Takes an attempt back: the password was right."""
        if self._enabled:
            for subject in _subjects(account=account, ip=ip):
                await self._counts.give_back(subject, self._rate)


def _subjects(*, account: str, ip: str) -> tuple[str, str]:
    return f"account {account[:256]}", f"address {_network(ip)}"


def _network(ip: str) -> str:
    """The part of an address that stands for one caller: all of an IPv4 address, the /64 of an IPv6 address."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ip
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_CUSTOMER_BITS), strict=False))
    return ip
