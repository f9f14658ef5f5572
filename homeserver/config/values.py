"""The kinds of values that settings have, beyond those of Python itself."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
"""A range of addresses, such as 10.0.0.0/8; a single address is a range of one."""


class Secret(str):
    """A text that must not be shown. In place of `key` there may be `key_file`, which names a file with the text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(...)"


@dataclass(frozen=True, slots=True)
class Range:
    """The smallest and the largest value of a number; None leaves that side open."""

    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class MustExist:
    """Says of a path that there must be a file."""


@dataclass(frozen=True, slots=True)
class Url:
    """Says of a text that it is a URL with one of these schemes, or one of these words."""

    schemes: tuple[str, ...]
    words: tuple[str, ...] = ()


Port: TypeAlias = Annotated[int, Range(0, 65535)]
Count: TypeAlias = Annotated[int, Range(1, 2**53 - 1)]
Amount: TypeAlias = Annotated[int, Range(0, 2**53 - 1)]
ExistingFile: TypeAlias = Annotated[Path, MustExist()]
HttpUrl: TypeAlias = Annotated[str, Url(("https", "http"))]

Settings: TypeAlias = dict[str, Any]
"""A mapping as it stands in the file."""
