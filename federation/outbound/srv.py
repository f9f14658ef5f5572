"""SRV records: on which hosts and ports a service of a domain is to be found.

https://www.rfc-editor.org/rfc/rfc2782
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

LOOKUP_SECONDS_MAX: Final = 8.0
RECORDS_MAX: Final = 20
TTL_SECONDS_MAX: Final = 86_400
NONE_TTL_SECONDS: Final = 600
"""How long it is believed that there is no record."""


@dataclass(frozen=True, slots=True)
class SrvRecord:
    """One record; among those of the lowest priority one is chosen at random by weight."""

    priority: int
    weight: int
    port: int
    host: str


@dataclass(frozen=True, slots=True)
class SrvAnswer:
    """All records of a name, and for how many seconds they may be believed. None at all is an answer, too."""

    records: Sequence[SrvRecord]
    ttl_seconds: float


class SrvLookup(Protocol):
    """Asks the DNS, or what stands in for it in tests."""

    async def records(self, name: str) -> SrvAnswer | None:
        """The SRV records of a name such as `_matrix-fed._tcp.example.org`; None if the DNS does not answer."""
        ...


class DnsSrvLookup:
    """The name servers of the system (`/etc/resolv.conf`), or others."""

    def __init__(self, resolver: dns.asyncresolver.Resolver | None = None) -> None:
        self._resolver = resolver

    async def records(self, name: str) -> SrvAnswer | None:
        """The SRV records of a name; see `SrvLookup`."""
        try:
            resolver = self._resolver = self._resolver or dns.asyncresolver.Resolver()
            answer = await resolver.resolve(
                dns.name.from_text(name), dns.rdatatype.SRV, search=False, lifetime=LOOKUP_SECONDS_MAX
            )
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return SrvAnswer((), NONE_TTL_SECONDS)
        except (dns.exception.DNSException, OSError, ValueError):
            return None
        rrset = answer.rrset
        if rrset is None:
            return SrvAnswer((), NONE_TTL_SECONDS)
        records = [
            SrvRecord(data.priority, data.weight, data.port, data.target.to_text(omit_final_dot=True))
            for data in list(rrset)[:RECORDS_MAX]
            if isinstance(data, SRV)
        ]
        return SrvAnswer(records, min(rrset.ttl, TTL_SECONDS_MAX))


def in_order(records: Sequence[SrvRecord]) -> list[SrvRecord]:
    """Records in the order in which they are to be tried: by priority, among equals at random by weight."""
    left = list(records)
    ordered: list[SrvRecord] = []
    while left:
        priority = min(record.priority for record in left)
        candidates = [record for record in left if record.priority == priority]
        # A weight of 0 is to have a very small chance of being first.
        shares = [100 * record.weight + 1 for record in candidates]
        mark = secrets.randbelow(sum(shares))
        for record, share in zip(candidates, shares, strict=True):
            mark -= share
            if mark < 0:
                ordered.append(record)
                left.remove(record)
                break
    return ordered
