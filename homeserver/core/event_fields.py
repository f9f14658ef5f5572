"""The `event_fields` of a filter: leaving of each event only what a client asks for.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from homeserver.core.property_paths import PropertyPath, parse_property_path

_DEPTH_MAX: Final = 32
"""Where a path is deeper, the whole property at this depth is given; a server may give more than was asked for."""

_Tree: TypeAlias = dict[str, "_Tree | None"]


@dataclass(frozen=True, slots=True)
class EventFields:
    """The wanted properties, by their names from the event inwards; None stands for a property with all it holds."""

    _tree: _Tree

    @classmethod
    def compile(cls, paths: Iterable[str]) -> "EventFields":
        """Compiles dot-separated paths; every string is one."""
        tree: _Tree = {}
        for path in paths:
            _add(tree, parse_property_path(path)[:_DEPTH_MAX])
        return cls(tree)


def _add(tree: _Tree, path: PropertyPath) -> None:
    *parents, name = path
    for parent in parents:
        subtree = tree.setdefault(parent, {})
        if subtree is None:
            return  # the whole parent is wanted already
        tree = subtree
    tree[name] = None


def apply_event_fields(client_event: Mapping[str, Any], fields: EventFields | None) -> Mapping[str, Any]:
    """Reduces an event to the wanted properties; None wants all of them.

    Returns:
        The event itself, or a new object that shares the values of the event. An object on the way to a wanted property
        is there even if the property is not; properties of what is no object are not.
    """
    return client_event if fields is None else _project(client_event, fields._tree)


def _project(value: Mapping[str, Any], tree: _Tree) -> dict[str, Any]:
    projected: dict[str, Any] = {}
    for name, subtree in tree.items():
        if name not in value:
            continue
        member = value[name]
        if subtree is None:
            projected[name] = member
        elif isinstance(member, Mapping):
            projected[name] = _project(member, subtree)
    return projected
