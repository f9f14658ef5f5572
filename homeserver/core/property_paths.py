"""Dot-separated paths to the properties of an event, as filters and push rules write them.

https://spec.matrix.org/v1.19/appendices/#dot-separated-property-paths
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

PropertyPath: TypeAlias = tuple[str, ...]
"""The names of the properties from the event inwards, without escapes."""


class Absent(Enum):
    """The type of `ABSENT`, which stands for a property that is not there; `None` is a value of JSON."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


def parse_property_path(text: str) -> PropertyPath:
    r"""Splits a path at its dots: `content.m\.relates_to` is `("content", "m.relates_to")`.

    A backslash before a dot or a backslash takes away its meaning; any other backslash stands for itself.
    """
    if "\\" not in text:
        return tuple(text.split("."))
    names: list[str] = []
    name: list[str] = []
    characters = iter(text)
    for character in characters:
        if character == ".":
            names.append("".join(name))
            name = []
        elif character == "\\":
            following = next(characters, "")
            name.append(following if following in (".", "\\") else "\\" + following)
        else:
            name.append(character)
    names.append("".join(name))
    return tuple(names)


def find_property(event: Mapping[str, Any], path: PropertyPath) -> Any:
    """The value of a property, or `ABSENT`; only objects are entered, not lists."""
    value: Any = event
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return ABSENT
        value = value[name]
    return value
