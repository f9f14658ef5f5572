"""Finds the addresses of host names, and keeps only those that may be connected to."""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from aiohttp.abc import AbstractResolver, ResolveResult

from homeserver.net.addresses import AddressPolicy
from homeserver.net.errors import AddressForbidden

LOOKUPS_MAX: Final = 16
"""How many names are looked up at once; a dead name server holds a thread for many seconds."""

LOOKUP_SECONDS_MAX: Final = 10.0


class HostLookup(Protocol):
    """Asks the system, or what stands in for it in tests."""

    async def addresses(self, host: str) -> Sequence[str]:
        """The addresses of a host name, the preferred one first.

        Raises:
            OSError: there are none.
        """
        ...

    async def close(self) -> None:
        """Asks no more."""
        ...


class SystemLookup:
    """The system's own way (`/etc/hosts`, DNS) in threads that nothing else waits for."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS_MAX, thread_name_prefix="lookup")

    async def addresses(self, host: str) -> Sequence[str]:
        """The addresses of a host name; see `HostLookup`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LOOKUP_SECONDS_MAX):
                found = await loop.run_in_executor(self._threads, _look_up, host)
        except TimeoutError as error:
            raise OSError(f"Looking up {host} took too long") from error
        except UnicodeError as error:
            raise OSError(f"{host} is no host name") from error
        return list(dict.fromkeys(found))

    async def close(self) -> None:
        """Lets the threads end when they have their answers."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(address[0]) for *_, address in found]


class CheckedResolver(AbstractResolver):
    """What aiohttp's connector asks: the addresses it is given are the very ones that it connects to."""

    def __init__(self, *, lookup: HostLookup, policy: AddressPolicy) -> None:
        self._lookup = lookup
        self._policy = policy

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The good addresses of a host name.

        Raises:
            AddressForbidden: it has addresses, but no good ones.
            OSError: it has none.
        """
        found = await self._lookup.addresses(host)
        allowed = [address for address in found if self._policy.allows(address)]
        if found and not allowed:
            raise AddressForbidden(f"This server does not connect to the addresses of {host}")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in allowed
        ]

    async def close(self) -> None:
        """Asks no more."""
        await self._lookup.close()
