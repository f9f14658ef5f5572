"""Spaces: reading `m.space.child` events, and the order of a space's children.

https://spec.matrix.org/v1.19/client-server-api/#spaces
"""

from collections.abc import Mapping
from typing import Any, Final

SPACE: Final = "m.space"
"""The room type of spaces."""

_ORDER_LENGTH_MAX: Final = 50


def is_valid_child(content: Mapping[str, Any]) -> bool:
    """Whether the content of an `m.space.child` event makes a room a child; without servers in `via` it does not."""
    via = content.get("via")
    return isinstance(via, list) and any(isinstance(server_name, str) for server_name in via)


def is_suggested(content: Mapping[str, Any]) -> bool:
    """Whether the content of an `m.space.child` event suggests the child to the space's members."""
    return content.get("suggested") is True


def child_order(content: Mapping[str, Any], *, origin_server_ts: int, room_id: str) -> tuple[bool, str, int, str]:
    """The sort key of a child: those with a valid `order` come first, by it; then by time, then by room id.

    https://spec.matrix.org/v1.19/client-server-api/#ordering-of-children-within-a-space
    """
    order = content.get("order")
    is_valid = (
        isinstance(order, str)
        and len(order) <= _ORDER_LENGTH_MAX
        and all("\x20" <= character <= "\x7e" for character in order)
    )
    return (not is_valid, str(order) if is_valid else "", origin_server_ts, room_id)
