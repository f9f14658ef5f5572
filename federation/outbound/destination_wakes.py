"""Tells the workers over the bus that something waits for a server; the one that serves it then looks."""

from collections.abc import Collection, Iterable
from typing import Final

from federation.outbound.shares import share_of
from homeserver.core.ids import ServerName
from storage.bus.base import Bus

_PREFIX: Final = "destination"
_AT_ONCE: Final = 500
# What is queued is not read as a stream, so no reader has to wait for its position to be final.
_POSITION: Final = 0


async def wake_destinations(bus: Bus, destinations: Collection[ServerName]) -> None:
    """Says that something waits for some servers, or that they can be reached again."""
    keys = [_kind(share_of(destination)) + destination for destination in destinations]
    for start in range(0, len(keys), _AT_ONCE):
        await bus.wake(keys[start : start + _AT_ONCE], _POSITION)


def listen_for_shares(bus: Bus, shares: Iterable[int]) -> None:
    """Says that wakes for the servers of some shares are wanted in this process, for a while."""
    bus.listen_for([_kind(share) for share in shares])


def woken_destinations(keys: Iterable[str]) -> list[ServerName]:
    """The servers that a wake is for."""
    return [ServerName(key.partition(":")[2]) for key in keys if key.startswith(_PREFIX)]


def _kind(share: int) -> str:
    """What stands for all servers of a share: the keys begin so."""
    return f"{_PREFIX}{share}:"
