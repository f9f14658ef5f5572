"""Parses a very large JSON object as it comes: each entry of the lists in it for itself.

The state of a large room is a hundred megabytes. A parser that is given all of it at once holds the interpreter for a
second or more, in a thread too; this one never does so for longer than one event takes, and keeps no text.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from homeserver.core.canonical_json import parse_json
from homeserver.core.errors import NotJson

UNIT_BYTES_MAX: Final = 1024 * 1024
"""The largest entry of a list, and the largest member that is no list."""
ENTRIES_MAX: Final = 1_000_000
DEPTH_MAX: Final = 100

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_SCALAR: Final = re.compile(rb"[^,\]}\s]*")
# A string, complete or not, or a bracket: what must be looked at to find where a value ends.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|[{}\[\]]', re.DOTALL)
_OPENING: Final = b"{["


class LargeObjectParser:
    """Takes an object in pieces of any size; the outcome is that of parsing it at once."""

    def __init__(self) -> None:
        self._result: dict[str, Any] = {}
        self._buffer = b""
        self._position = 0
        # How far the value at the position has been looked at, and how deep it is there.
        self._scanned = 0
        self._depth = 0
        self._key = ""
        self._list: list[Any] = []
        self._entries = 0
        self._state: Callable[[bytes], bool] = self._before_object

    def feed(self, data: bytes) -> None:
        """Takes the next piece.

        Raises:
            NotJson: it cannot belong to a JSON object, or a part is too large.
        """
        self._buffer = self._buffer[self._position :] + data
        self._scanned -= self._position
        self._position = 0
        while self._skip_space() and self._state(self._buffer[self._position : self._position + 1]):
            pass
        if len(self._buffer) - self._position > UNIT_BYTES_MAX:
            raise NotJson("A part of the JSON is too large")

    def finish(self) -> dict[str, Any]:
        """The object, when all of it has come.

        Raises:
            NotJson: something is missing.
        """
        if self._state != self._after_object:
            raise NotJson("The JSON ends too early")
        return self._result

    # Each state takes the next byte that is no space, and says whether it could go on with what has come so far.

    def _before_object(self, byte: bytes) -> bool:
        return self._expect(byte, {b"{": self._before_first_key})

    def _before_first_key(self, byte: bytes) -> bool:
        if byte == b"}":
            return self._expect(byte, {b"}": self._after_object})
        return self._before_key(byte)

    def _before_key(self, byte: bytes) -> bool:
        if byte != b'"':
            raise _malformed()
        unit = self._take_unit(byte)
        if unit is None:
            return False
        self._key = parse_json(unit)
        self._state = self._after_key
        return True

    def _after_key(self, byte: bytes) -> bool:
        return self._expect(byte, {b":": self._before_value})

    def _before_value(self, byte: bytes) -> bool:
        if byte == b"[":
            self._list = self._result[self._key] = []
            return self._expect(byte, {b"[": self._before_first_entry})
        unit = self._take_unit(byte)
        if unit is None:
            return False
        self._result[self._key] = parse_json(unit, depth_max=DEPTH_MAX)
        self._state = self._after_value
        return True

    def _after_value(self, byte: bytes) -> bool:
        return self._expect(byte, {b",": self._before_key, b"}": self._after_object})

    def _before_first_entry(self, byte: bytes) -> bool:
        if byte == b"]":
            return self._expect(byte, {b"]": self._after_value})
        return self._before_entry(byte)

    def _before_entry(self, byte: bytes) -> bool:
        unit = self._take_unit(byte)
        if unit is None:
            return False
        self._entries += 1
        if self._entries > ENTRIES_MAX:
            raise NotJson("The JSON has too many entries")
        self._list.append(parse_json(unit, depth_max=DEPTH_MAX))
        self._state = self._after_entry
        return True

    def _after_entry(self, byte: bytes) -> bool:
        return self._expect(byte, {b",": self._before_entry, b"]": self._after_value})

    def _after_object(self, _: bytes) -> bool:
        raise _malformed()

    def _expect(self, byte: bytes, states: dict[bytes, Callable[[bytes], bool]]) -> bool:
        """Passes over one byte into the state that it leads to."""
        state = states.get(byte)
        if state is None:
            raise _malformed()
        self._position += 1
        self._state = state
        return True

    def _skip_space(self) -> bool:
        """Passes over white space; False at the end of what has come."""
        space = _SPACE.match(self._buffer, self._position)
        assert space is not None
        self._position = space.end()
        return self._position < len(self._buffer)

    def _take_unit(self, first: bytes) -> bytes | None:
        """The value that begins here, as text; None if its end has not come yet."""
        end = self._nested_end() if first in (b"{", b"[") else self._plain_end(first)
        if end is None:
            return None
        unit = self._buffer[self._position : end]
        if len(unit) > UNIT_BYTES_MAX:
            raise NotJson("A part of the JSON is too large")
        self._position = end
        self._scanned = self._depth = 0
        return unit

    def _plain_end(self, first: bytes) -> int | None:
        pattern = _TOKEN if first == b'"' else _SCALAR
        found = pattern.match(self._buffer, self._position)
        if found is None or found.end() == self._position:
            raise _malformed()
        if first == b'"':
            return found.end() if found[1] else None
        return found.end() if found.end() < len(self._buffer) else None

    def _nested_end(self) -> int | None:
        for token in _TOKEN.finditer(self._buffer, max(self._scanned, self._position)):
            byte = token[0][:1]
            if byte == b'"':
                if not token[1]:
                    self._scanned = token.start()
                    return None
            elif byte in _OPENING:
                self._depth += 1
            else:
                self._depth -= 1
                if not self._depth:
                    return token.end()
        self._scanned = len(self._buffer)
        return None


def _malformed() -> NotJson:
    return NotJson("The content is not valid JSON")
