"""Which other servers the operator lets this one talk with."""

from collections.abc import Sequence

from homeserver.core.glob import GlobSet
from homeserver.core.ids import ServerName


class AllowedServers:
    """Two lists of names, where `*` and `?` stand for any characters; letters match in either case.

    An entry means a server whether it stands with the port or without it.
    """

    def __init__(self, *, allowed: Sequence[str] | None, denied: Sequence[str], enabled: bool = True) -> None:
        """Takes the lists; `allowed` is None for all servers, `enabled` is False for none."""
        self._allowed = None if allowed is None else GlobSet.compile(allowed, ignore_case=True)
        self._denied = GlobSet.compile(denied, ignore_case=True)
        self._enabled = enabled

    def allows(self, server_name: ServerName) -> bool:
        """Whether this server may talk with another."""
        return (
            self._enabled
            and not _matches(self._denied, server_name)
            and (self._allowed is None or _matches(self._allowed, server_name))
        )


def _matches(names: GlobSet, server_name: ServerName) -> bool:
    return names.matches(server_name) or names.matches(server_name.host)
