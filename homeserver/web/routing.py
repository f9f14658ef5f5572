"""Finds the endpoint for a method and a path: a tree of path segments, of which written-out ones go before parameters.

Parameters are percent-decoded one segment at a time, so that `%2F` never splits a parameter in two.

https://spec.matrix.org/v1.19/client-server-api/#api-standards
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from homeserver.core.errors import InvalidParam, Unrecognized
from homeserver.web.errors import MethodNotAllowed

_WRONG_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PARAMETER: Final = re.compile(r"\{([a-z][a-z0-9_]*)(:path)?\}")
_REST: Final = "path"
QUERY_PARAMETERS_MAX: Final = 1000


class Routed(Protocol):
    """What a router leads to."""

    @property
    def method(self) -> str:
        """GET, PUT, POST or DELETE."""
        ...

    @property
    def paths(self) -> tuple[str, ...]:
        """The path and its aliases."""
        ...


R = TypeVar("R", bound=Routed)


@dataclass(frozen=True, slots=True)
class _Leaf(Generic[R]):
    target: R
    names: tuple[str, ...]


@dataclass(slots=True)
class _Node(Generic[R]):
    """A place in the tree: what follows, and what ends here or takes all that follows, by method."""

    literals: dict[str, "_Node[R]"] = field(default_factory=dict)
    parameter: "_Node[R] | None" = None
    ends: dict[str, _Leaf[R]] = field(default_factory=dict)
    rests: dict[str, _Leaf[R]] = field(default_factory=dict)


class Router(Generic[R]):
    """The tree of all paths of one listener."""

    def __init__(self, targets: Iterable[R]) -> None:
        """Builds the tree.

        Raises:
            ValueError: two targets claim the same method and path, or a path is written wrongly.
        """
        self._root: _Node[R] = _Node()
        for target in targets:
            names = {path: frozenset(path_parameters(path)) for path in target.paths}
            if len(set(names.values())) != 1:
                raise ValueError(f"The paths {target.paths} do not have the same parameters")
            for path in target.paths:
                self._add(path, target)

    def find(self, method: str, raw_path: str) -> tuple[R, Mapping[str, str]]:
        """Finds what answers a request, and the path's parameters.

        Args:
            method: the HTTP method; HEAD is taken for GET.
            raw_path: the path as it came, percent-encoded, without the query.

        Raises:
            Unrecognized: nothing has this path (404).
            MethodNotAllowed: something has it, but with another method (405).
            InvalidParam: a parameter is not UTF-8, is wrongly percent-encoded, or holds a NUL character.
        """
        method = "GET" if method == "HEAD" else method
        segments = raw_path.split("/")
        allowed: set[str] = set()
        found = self._search(self._root, method, segments, 1, [], allowed)
        if found is None:
            if allowed:
                raise MethodNotAllowed(frozenset(allowed))
            raise Unrecognized("Unrecognized request")
        leaf, values = found
        return leaf.target, {name: decode_component(value) for name, value in zip(leaf.names, values, strict=True)}

    def _add(self, path: str, target: R) -> None:
        node, names = self._root, path_parameters(path)
        segments = path.split("/")
        leaves = node.ends
        for index, segment in enumerate(segments[1:], start=1):
            parameter = _PARAMETER.fullmatch(segment)
            if parameter is None:
                node = node.literals.setdefault(segment, _Node())
            elif parameter[2] is None:
                node.parameter = node.parameter or _Node()
                node = node.parameter
            elif index == len(segments) - 1:
                leaves = node.rests
                break
            else:
                raise ValueError(f"{path}: only the last parameter can take the rest of the path")
            leaves = node.ends
        if target.method in leaves:
            raise ValueError(f"{target.method} {path} is there twice")
        leaves[target.method] = _Leaf(target, names)

    def _search(
        self, node: _Node[R], method: str, segments: list[str], index: int, values: list[str], allowed: set[str]
    ) -> tuple[_Leaf[R], list[str]] | None:
        """Goes down one segment, and back up where that leads nowhere; notes the other methods of paths that fit."""
        if index == len(segments):
            leaf = node.ends.get(method)
            if leaf is not None:
                return leaf, values
            allowed.update(node.ends)
        else:
            segment = segments[index]
            literal = node.literals.get(segment)
            if literal is not None:
                found = self._search(literal, method, segments, index + 1, values, allowed)
                if found is not None:
                    return found
            if node.parameter is not None and segment:
                found = self._search(node.parameter, method, segments, index + 1, [*values, segment], allowed)
                if found is not None:
                    return found
        if node.rests:
            leaf = node.rests.get(method)
            if leaf is not None:
                return leaf, [*values, "/".join(segments[index:])]
            allowed.update(node.rests)
        return None


def path_parameters(path: str) -> tuple[str, ...]:
    """The names of a declared path's parameters, in their order.

    Raises:
        ValueError: it is written wrongly.
    """
    if not path.startswith("/"):
        raise ValueError(f"{path} does not begin with a slash")
    names = []
    for segment in path.split("/"):
        parameter = _PARAMETER.fullmatch(segment)
        if parameter is not None:
            names.append(parameter[1])
        elif "{" in segment or "}" in segment:
            raise ValueError(f"{path}: a parameter is a whole segment")
    if len(set(names)) != len(names):
        raise ValueError(f"{path} has two parameters of one name")
    return tuple(names)


def path_takes_rest(path: str) -> bool:
    """Whether the last parameter of a declared path takes the rest, which may be empty."""
    return path.endswith(f":{_REST}}}")


def decode_component(text: str) -> str:
    """Decodes one percent-encoded part of a path.

    Raises:
        InvalidParam: wrong percent-encoding, no UTF-8, or a NUL character, which nothing in Matrix may hold.
    """
    if "%" not in text:
        if text.isascii():
            return text
        raise InvalidParam("The path must be percent-encoded")
    if _WRONG_PERCENT.search(text):
        raise InvalidParam("The request is wrongly percent-encoded")
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise InvalidParam("The request is not UTF-8") from None
    if "\0" in decoded:
        raise InvalidParam("The request holds a NUL character")
    return decoded


def parse_query(raw_query: str) -> dict[str, list[str]]:
    """Decodes a query string to each parameter's values, in order; `+` is a space.

    Raises:
        InvalidParam: as `decode_component`, or there are more than a thousand parameters.
    """
    query: dict[str, list[str]] = {}
    if not raw_query:
        return query
    fields = raw_query.split("&", QUERY_PARAMETERS_MAX)
    if len(fields) > QUERY_PARAMETERS_MAX:
        raise InvalidParam("The request has too many query parameters")
    for text in fields:
        if text:
            name, _, value = text.replace("+", " ").partition("=")
            query.setdefault(decode_component(name), []).append(decode_component(value))
    return query
