"""Identifiers and their grammars (appendices, "Identifier Grammar").

Each identifier is a `str` subclass that only its `parse()` makes, so that holding a `UserId` proves that it was
checked; it goes to the database and into JSON unchanged. A wrong one is `InvalidParam` (400 M_INVALID_PARAM).

https://spec.matrix.org/v1.19/appendices/#identifier-grammar
"""

import ipaddress
import re
from typing import Final, Self

from homeserver.core.errors import InvalidParam

ID_BYTES_MAX: Final = 255

# The grammar's DNS names take in all that looks like an IPv4 address.
_SERVER_NAME = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|[A-Za-z0-9.-]{1,255})(?::(\d{1,5}))?", re.ASCII)
_PORT_MAX: Final = 65_535
# A room id without a domain is the id of the create event, a SHA-256 in URL-safe base64, under another sigil.
_HASH_ROOM_ID = re.compile(r"![A-Za-z0-9_-]{43}", re.ASCII)
_LOCALPART = re.compile(r"[a-z0-9._=/+-]+", re.ASCII)
# Surrogates cannot be encoded and NUL cannot be stored: neither belongs into an identifier of any age.
_FORBIDDEN = re.compile("[\x00\ud800-\udfff]")


def _checked(kind: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidParam(f"{kind} must be a string")
    if _FORBIDDEN.search(value):
        raise InvalidParam(f"{kind} holds a character that is not allowed")
    if len(value) > ID_BYTES_MAX or len(value.encode()) > ID_BYTES_MAX:
        raise InvalidParam(f"{kind} is longer than {ID_BYTES_MAX} bytes")
    return value


def _is_server_name(text: str) -> bool:
    """Whether a text follows the grammar of server names, with a port that exists and an IPv6 address that is one."""
    match = _SERVER_NAME.fullmatch(text)
    if match is None:
        return False
    ipv6, port = match.groups()
    return (ipv6 is None or _is_ipv6(ipv6)) and (port is None or int(port) <= _PORT_MAX)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ipaddress.AddressValueError:
        return False
    return True


class ServerName(str):
    """A server name: a host name or an IP literal, with an optional port."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Checks a server name.

        Raises:
            InvalidParam: it does not follow the grammar.
        """
        text = _checked("A server name", value)
        if not _is_server_name(text):
            raise InvalidParam("Not a server name")
        return cls(text)

    @property
    def host(self) -> str:
        """The name without its port; an IPv6 literal keeps its brackets."""
        return self.rpartition(":")[0] if self.port is not None else str(self)

    @property
    def port(self) -> int | None:
        """The explicit port, if there is one."""
        _, colon, port = self.rpartition(":")
        return int(port) if colon and port.isdigit() and not self.endswith("]") else None


class _DomainId(str):
    """An identifier of the form sigil, local part, colon, server name."""

    __slots__ = ()
    SIGIL = ""
    KIND = ""

    @classmethod
    def parse(cls, value: object) -> Self:
        """Checks an identifier of this kind.

        Raises:
            InvalidParam: it does not follow the grammar.
        """
        text = _checked(cls.KIND, value)
        localpart, colon, domain = text[1:].partition(":")
        if not text.startswith(cls.SIGIL) or not colon or not _is_server_name(domain):
            raise InvalidParam(f"{cls.KIND} must look like {cls.SIGIL}localpart:domain")
        if not cls._localpart_ok(localpart):
            raise InvalidParam(f"{cls.KIND} has a wrong local part")
        return cls(text)

    @staticmethod
    def _localpart_ok(localpart: str) -> bool:
        return bool(localpart)

    @property
    def localpart(self) -> str:
        """What stands between the sigil and the first colon."""
        return self[1:].partition(":")[0]

    @property
    def server_name(self) -> ServerName:
        """What stands after the first colon."""
        return ServerName(self.partition(":")[2])


class UserId(_DomainId):
    """A user id. Historical local parts (any character but `:` and NUL, or none) are accepted, as rooms hold them."""

    __slots__ = ()
    SIGIL = "@"
    KIND = "A user id"

    @staticmethod
    def _localpart_ok(localpart: str) -> bool:
        return True

    @classmethod
    def make(cls, localpart: str, server_name: ServerName) -> Self:
        """Makes the id of a new user: only `a-z0-9._=/+-` in the local part, 255 bytes in all.

        Raises:
            InvalidParam: it does not follow the grammar of new user ids.
        """
        if not _LOCALPART.fullmatch(localpart):
            raise InvalidParam("A user name holds only a-z, 0-9 and . _ = / + -")
        return cls.parse(f"@{localpart}:{server_name}")


class RoomAlias(_DomainId):
    """A room alias."""

    __slots__ = ()
    SIGIL = "#"
    KIND = "A room alias"


class RoomId(str):
    """A room id: `!opaque:domain`, or from room version 12 on `!` and the create event's hash."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Checks a room id of any version.

        Raises:
            InvalidParam: it does not follow the grammar.
        """
        text = _checked("A room id", value)
        opaque, colon, domain = text[1:].partition(":")
        if colon:
            if not text.startswith("!") or not opaque or not _is_server_name(domain):
                raise InvalidParam("Not a room id")
        elif not _HASH_ROOM_ID.fullmatch(text):
            raise InvalidParam("Not a room id")
        return cls(text)

    @property
    def server_name(self) -> ServerName | None:
        """The domain of the room's creator; None for room ids without one (version 12 and later)."""
        _, colon, domain = self.partition(":")
        return ServerName(domain) if colon else None


class EventId(str):
    """An event id: `$opaque:domain` (room versions 1 and 2) or `$` and a hash (3 and later)."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Checks an event id of any version.

        Raises:
            InvalidParam: it does not follow the grammar.
        """
        text = _checked("An event id", value)
        if not text.startswith("$") or len(text) < 2:
            raise InvalidParam("Not an event id")
        return cls(text)

    @property
    def server_name(self) -> ServerName | None:
        """The server that an id of room versions 1 and 2 names; None for other ids, and for a wrong domain."""
        _, colon, domain = self.partition(":")
        return ServerName(domain) if colon and _is_server_name(domain) else None


class DeviceId(str):
    """A device id: opaque, not empty, at most 255 bytes."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Checks a device id.

        Raises:
            InvalidParam: it is empty, too long, or no string.
        """
        text = _checked("A device id", value)
        if not text:
            raise InvalidParam("A device id is not empty")
        return cls(text)


class MxcUri(str):
    """A Matrix content URI, `mxc://server-name/media-id`."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Checks a content URI.

        Raises:
            InvalidParam: it does not follow the grammar.
        """
        text = _checked("A content URI", value)
        server_name, slash, media_id = text.removeprefix("mxc://").partition("/")
        if not text.startswith("mxc://") or not slash or not _is_server_name(server_name):
            raise InvalidParam("Not a content URI")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", media_id, re.ASCII):
            raise InvalidParam("Not a content URI")
        return cls(text)

    @property
    def server_name(self) -> ServerName:
        """The server that holds the content."""
        return ServerName(self.removeprefix("mxc://").partition("/")[0])

    @property
    def media_id(self) -> str:
        """The content's name on its server."""
        return self.removeprefix("mxc://").partition("/")[2]
