"""All attacks on an endpoint, the same in every run: which of very many are made is drawn by the endpoint's name."""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Final
from urllib.parse import quote

from homeserver.web.endpoint import Access, Endpoint
from tests.hostile.bodies import Example, examples
from tests.hostile.malice import (
    HUGE_BODY,
    WRONG_AUTHORIZATIONS,
    WRONG_BODIES,
    WRONG_JSON,
    WRONG_TEXTS,
    places,
    with_malice,
    without,
)

VALUES_PER_PLACE: Final = 4
TEXTS_PER_PARAMETER: Final = 12

_PARAMETER: Final = re.compile(r"\{(\w+)(?::path)?\}")
_QUERY: Final = re.compile(r"query_[a-z]+\(\s*\"([^\"]+)\"")


@dataclass(frozen=True, slots=True)
class Attack:
    """A request, as it is sent.

    Attributes:
        kind: what is wrong with it.
        method: its method.
        target: its path and query, percent-encoded.
        body: its body; None for none.
        authorization: its header; None for the attacker's own.
    """

    kind: str
    method: str
    target: str
    body: bytes | None = None
    authorization: str | None = None


def attacks(endpoint: Endpoint, names: Mapping[str, str]) -> Iterator[Attack]:
    """The attacks on one endpoint; right requests are among them."""
    draw = random.Random(f"{endpoint.method} {endpoint.path}")
    rights: Sequence[Example] = examples(endpoint, names) or [Example({})]
    target = _target(endpoint, {**names, **rights[0].path})
    right_body = None if endpoint.body is None else json.dumps(rights[0].body).encode()
    if endpoint.body is not None:
        yield from _whole_bodies(endpoint, target)
        for example in rights:
            yield from _members(endpoint, names, example, draw)
    if endpoint.body_streamed:
        yield Attack("upload", endpoint.method, target, b"\x00\xff" * 500)
    for text in WRONG_TEXTS:
        for name in _PARAMETER.findall(endpoint.path):
            if draw.random() < TEXTS_PER_PARAMETER / len(WRONG_TEXTS):
                wrong = _target(endpoint, {**names, **rights[0].path}, {name: text})
                yield Attack(f"path {name}", endpoint.method, wrong, right_body)
    for name in _query_parameters(endpoint):
        for text in draw.sample(WRONG_TEXTS, TEXTS_PER_PARAMETER):
            yield Attack(f"query {name}", endpoint.method, f"{target}?{quote(name)}={text}", right_body)
    yield Attack("query", endpoint.method, f"{target}?%ff=%ff&&=&a=b=c&%00", right_body)
    for header in WRONG_AUTHORIZATIONS:
        yield Attack("token", endpoint.method, target, right_body, header)
    yield Attack("token", endpoint.method, f"{target}?access_token=wrong", right_body, "")


def _whole_bodies(endpoint: Endpoint, target: str) -> Iterator[Attack]:
    for body in (*WRONG_BODIES, HUGE_BODY):
        yield Attack("body", endpoint.method, target, body)


def _members(endpoint: Endpoint, names: Mapping[str, str], example: Example, draw: random.Random) -> Iterator[Attack]:
    """Right bodies of which one member is wrong, or missing, or one too many."""
    target = _target(endpoint, {**names, **example.path})
    yield Attack("nothing", endpoint.method, target, json.dumps(example.body).encode())
    for place in places(example.body):
        kind = "member " + ".".join(map(str, place))
        for malice in draw.sample(WRONG_JSON, VALUES_PER_PLACE):
            yield Attack(kind, endpoint.method, target, with_malice(example.body, place, malice))
        yield Attack(f"{kind} missing", endpoint.method, target, without(example.body, place))
    for malice in draw.sample(WRONG_JSON, VALUES_PER_PLACE):
        more = {**example.body, "org.example.more": 1}
        yield Attack("member more", endpoint.method, target, with_malice(more, ("org.example.more",), malice))


def _target(endpoint: Endpoint, names: Mapping[str, str], encoded: Mapping[str, str] | None = None) -> str:
    """The path of an endpoint with its parameters; some may be given as they shall be sent."""

    def parameter(match: re.Match[str]) -> str:
        name = match[1]
        if encoded and name in encoded:
            return encoded[name]
        return quote(names.get(name, "x"), safe="")

    return _PARAMETER.sub(parameter, endpoint.path)


def _query_parameters(endpoint: Endpoint) -> Sequence[str]:
    """The names of the query parameters that the endpoint's module reads, as its text shows them."""
    function = endpoint.function
    assert isinstance(function, FunctionType)
    return _names_in(Path(function.__code__.co_filename))


@cache
def _names_in(file: Path) -> Sequence[str]:
    return sorted(set(_QUERY.findall(file.read_text(encoding="utf-8"))))


def must_be_refused(endpoint: Endpoint, attack: Attack) -> bool:
    """Whether the token of the request is wrong where one is needed."""
    return attack.kind == "token" and endpoint.access not in (Access.PUBLIC, Access.OPTIONAL)
