"""What a hostile client sends in place of what is asked for: as JSON, as parts of a path, as queries, as tokens."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_PLACE: Final = "(the place where malice goes)"

WRONG_JSON: Final[Sequence[str]] = (
    "null",
    "true",
    "0",
    "-1",
    "1.5",
    "1e400",
    "-0.0",
    "9007199254740992",
    "-9007199254740993",
    "1" * 400,
    "NaN",
    "-Infinity",
    '""',
    '"\\u0000"',
    '"a\\u0000b"',
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"@"',
    '"!"',
    '"@:"',
    '"#x:y:z"',
    '"@a b:test"',
    '"m.room.create"',
    '"' + "x" * 10_000 + '"',
    '"' + "\U0001f4a9" * 300 + '"',
    '"../../../etc/passwd"',
    "[]",
    "[[]]",
    "[null]",
    '["", 5, {}]',
    "[" * 60 + "]" * 60,
    "[" + ",".join(["0"] * 2_000) + "]",
    "{}",
    '{"": {}}',
    '{"\\ud800": 1}',
    '{"\\u0000": "\\u0000"}',
    '{"a": 9007199254740993}',
    '{"a": 1.5}',
    '{"__proto__": {"a": 1}, "constructor": "x"}',
    '{"a": ' * 60 + "1" + "}" * 60,
    "{" + ",".join(f'"k{number}": 1' for number in range(2_000)) + "}",
)
"""Values as JSON texts: some of them are none that a JSON library would write."""

WRONG_BODIES: Final[Sequence[bytes]] = (
    b"",
    b" ",
    b"\x00",
    b"nonsense",
    b"{",
    b'{"a": 1',
    b'{"a": 1}}',
    b"[]",
    b"5",
    b"null",
    b'"text"',
    b"NaN",
    b"'single'",
    b'{"a": "\xff\xfe"}',
    b'{"a": "\xed\xa0\x80"}',
    b'\xef\xbb\xbf{"a": 1}',
    '{"a": 1}'.encode("utf-16"),
    b'{"a": 1, "a": 2}',
    b'{"a": "\n"}',
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    b"1" * 20_000,
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    b"--boundary\r\nContent-Disposition: form-data\r\n\r\n{}\r\n--boundary--",
)
"""Whole bodies that are no JSON object, or hardly one."""

HUGE_BODY: Final = b'{"a": "' + b"x" * (2 * 1024 * 1024) + b'"}'

WRONG_TEXTS: Final[Sequence[str]] = (
    "",
    "%00",
    "a%00b",
    "%ff",
    "%ed%a0%80",
    "%",
    "%zz",
    ".",
    "..",
    "%2e%2e%2f%2e%2e",
    "%2f",
    "null",
    "-1",
    "0",
    "1e9",
    "9" * 30,
    "NaN",
    "@",
    "%40:",
    "%40a%20b:test",
    "%40x:y:z",
    "%40" + "x" * 300 + ":test",
    "!",
    "!:",
    "!x",
    "!unheard:test",
    "%23:test",
    "%23",
    "$",
    "$unheard",
    "%7B",
    "%7B%7D",
    "%5B%5D",
    "%7B%22room%22%3A5%7D",
    "x" * 10_000,
    "%F0%9F%92%A9" * 100,
    "'%3B%20DROP%20TABLE%20users%3B--",
    "%0d%0aX-Header:%20x",
    "%E2%80%AE",
)
"""Parts of paths and queries, percent-encoded as they are sent."""

WRONG_AUTHORIZATIONS: Final[Sequence[str]] = (
    "",
    "Bearer",
    "Bearer ",
    "Bearer wrong",
    "Bearer " + "x" * 10_000,
    "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJAYWRtaW46dGVzdCJ9.",
    "Bearer eyJhbGciOiJIUzI1NiJ9.e30.AAAA",
    "Bearer a.b.c",
    "Bearer \xff\xfe",
    "Basic YWxpY2U6cGFzc3dvcmQ=",
    "X-Matrix origin=test,key=x,sig=x",
    "nonsense",
)
"""Headers of clients that are not who they say."""


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where something stands in a JSON value: each member of each object, each entry of each list."""
    children: Iterator[tuple[str | int, Any]]
    if isinstance(value, Mapping):
        children = iter(value.items())
    elif isinstance(value, list):
        children = iter(enumerate(value))
    else:
        return
    for name, child in children:
        yield (*path, name)
        yield from places(child, (*path, name))


def with_malice(value: Any, place: tuple[str | int, ...], malice: str) -> bytes:
    """The JSON of a value with something else, a JSON text, in one place."""
    return json.dumps(_replaced(value, place)).replace(json.dumps(_PLACE), malice).encode()


def without(value: Any, place: tuple[str | int, ...]) -> bytes:
    """The JSON of a value with one member or entry left out."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for step in place[:-1]:
        inner = inner[step]
    del inner[place[-1]]
    return json.dumps(copy).encode()


def _replaced(value: Any, place: tuple[str | int, ...]) -> Any:
    if not place:
        return _PLACE
    if isinstance(value, Mapping):
        return {name: _replaced(child, place[1:]) if name == place[0] else child for name, child in value.items()}
    return [_replaced(child, place[1:]) if index == place[0] else child for index, child in enumerate(value)]
