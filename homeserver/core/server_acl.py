"""Server access control lists: which servers may take part in a room, as `m.room.server_acl` says.

https://spec.matrix.org/v1.19/client-server-api/#server-access-control-lists-acls-for-rooms
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from homeserver.core.glob import GlobSet
from homeserver.core.ids import ID_BYTES_MAX, ServerName

_CHARACTERS_MAX: Final = 65_536
"""How much of each list is read; no event can hold more, so this cuts nothing that a room could contain."""


@dataclass(frozen=True, slots=True)
class ServerAcl:
    """A compiled list. Ports are not looked at, and letters match in either case.

    One question costs time in proportion to the list at most. Keep the value, or the answers, by the event's id.
    """

    allow_ip_literals: bool
    _deny: GlobSet
    _allow: GlobSet

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> "ServerAcl":
        """Reads the content of an `m.room.server_acl` event, which may be anything.

        What is no list counts as an empty one (so that without a proper `allow` nobody is let in), entries that are no
        strings are passed over, and `allow_ip_literals` is true unless it is `false`.
        """
        return cls(
            allow_ip_literals=content.get("allow_ip_literals") is not False,
            _deny=_compile(content.get("deny")),
            _allow=_compile(content.get("allow")),
        )

    def allows(self, server_name: ServerName) -> bool:
        """Whether the server may take part."""
        host = server_name.host
        if not self.allow_ip_literals and _is_ip_literal(host):
            return False
        return not self._deny.matches(host) and self._allow.matches(host)


def _compile(patterns: object) -> GlobSet:
    kept = []
    characters = 0
    for pattern in patterns if isinstance(patterns, list) else ():
        if not isinstance(pattern, str):
            continue
        characters += len(pattern) + 1
        if characters > _CHARACTERS_MAX:
            break
        # Whatever needs more characters than a server name can have matches none.
        if len(pattern) - pattern.count("*") <= ID_BYTES_MAX:
            kept.append(pattern)
    return GlobSet.compile(kept, ignore_case=True)


def _is_ip_literal(host: str) -> bool:
    """Whether the host has the form of an IP address in the grammar of server names, even with numbers beyond 255."""
    if host.startswith("["):
        return True
    numbers = host.split(".")
    return len(numbers) == 4 and all(
        1 <= len(number) <= 3 and number.isascii() and number.isdigit() for number in numbers
    )
