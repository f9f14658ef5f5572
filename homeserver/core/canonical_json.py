"""Canonical JSON, the one encoding that hashes and signatures cover, and the safe reading of JSON from others.

https://spec.matrix.org/v1.19/appendices/#canonical-json
"""

import json
from typing import Any, Final

import orjson

from homeserver.core.errors import BadJson, NotJson

INTEGER_MAX: Final = 2**53 - 1
JSON_DEPTH_MAX: Final = 200
"""How deep objects and lists may stand in each other; no encoder in use fails there (orjson does from 255 on)."""

# From here on orjson reads an integer as a float and so loses digits.
_ORJSON_INTEGER_LIMIT: Final = 2**63
_EXACT_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def encode_canonical(value: Any) -> bytes:
    """Encodes a JSON value canonically: sorted by code point, without white space, in UTF-8.

    It is lenient, as room versions 1 to 5 ask for: integers may be of any size, and a float is written as the other
    servers do (shortest form that reads back the same, `1e+16`, `1.0`).

    Raises:
        BadJson: NaN, an infinity, a lone surrogate, or nesting deeper than `JSON_DEPTH_MAX`.
        TypeError: something that is no JSON value; a mistake of the caller.
    """
    odd = _odd_scalars(value, JSON_DEPTH_MAX)
    if all(type(scalar) is int for scalar in odd):
        try:
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except orjson.JSONEncodeError:
            pass  # integers beyond 64 bits, and identifiers as keys, which are not exactly `str`
    return _encode_exactly(value)


def encode_strict(value: Any) -> bytes:
    """Encodes a JSON value that must be canonical in every respect, as room version 6 and later enforce.

    Raises:
        BadJson: a float, an integer beyond ±(2^53 - 1), a lone surrogate, or nesting deeper than `JSON_DEPTH_MAX`.
    """
    if _odd_scalars(value, JSON_DEPTH_MAX):
        raise BadJson("Canonical JSON has no floats and no integers beyond 2^53 - 1")
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        return _encode_exactly(value)


def check_strict(value: Any) -> None:
    """Checks that a JSON value could be encoded by `encode_strict`.

    Raises:
        BadJson: it could not.
    """
    encode_strict(value)


def parse_json(text: bytes | str, *, depth_max: int = JSON_DEPTH_MAX) -> Any:
    """Reads JSON that somebody else wrote.

    Floats are kept as floats, integers of up to 308 digits exactly as integers (`1e3` is a float, `-0` is 0), and of
    a key that stands twice in an object the last one holds. Whether floats and large integers are welcome is for the
    caller to say (`check_strict`, or a schema).

    Raises:
        NotJson: wrong syntax, NaN or an infinity, a number too large for a float, invalid UTF-8, a lone surrogate,
            or nesting deeper than `depth_max`.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise NotJson("The content is not valid JSON") from None
    try:
        odd = _odd_scalars(value, depth_max)
    except BadJson as error:
        raise NotJson(error.message) from None
    if any(type(scalar) is float and abs(scalar) >= _ORJSON_INTEGER_LIMIT for scalar in odd):
        return json.loads(text)
    return value


def _odd_scalars(value: Any, depth_max: int) -> list[Any]:
    """All floats, all integers beyond ±(2^53 - 1), and all that is no JSON in a value.

    One walk, level by level instead of by recursion, so that no nesting can exhaust the stack.
    """
    odd: list[Any] = []
    level: list[Any] = [(value,)]
    depth = -1
    while level:
        depth += 1
        if depth > depth_max:
            raise BadJson("The JSON is nested too deeply")
        below: list[Any] = []
        for container in level:
            for item in container.values() if type(container) is dict else container:
                kind = type(item)
                if kind is str:
                    continue
                if kind is dict or kind is list or kind is tuple:
                    below.append(item)
                elif kind is int:
                    if not -INTEGER_MAX <= item <= INTEGER_MAX:
                        odd.append(item)
                elif item is not None and kind is not bool and not isinstance(item, str):
                    odd.append(item)
        level = below
    return odd


def _encode_exactly(value: Any) -> bytes:
    """The slow way, for what orjson refuses or writes in another form."""
    try:
        return _EXACT_ENCODER.encode(value).encode()
    except ValueError:  # NaN and infinities; a UnicodeEncodeError for lone surrogates
        raise BadJson("The JSON holds a number or a character that cannot be encoded") from None
