"""The tokens with which clients come back for more: opaque to them, safe in a URL, and told apart by the first letter.

A form that changes takes another letter, so that an old token is refused instead of misread.

https://spec.matrix.org/v1.19/appendices/#pagination
"""

import re
from dataclasses import dataclass
from typing import Final, Self

from homeserver.core.errors import InvalidParam

_INT64_MAX: Final = 2**63 - 1
_NATURAL = r"(0|[1-9][0-9]{0,18})"
_SYNC = re.compile(f"s{_NATURAL}")
_NOTIFICATION = re.compile(f"n{_NATURAL}")
_HISTORY = re.compile(rf"t(0|-?[1-9][0-9]{{0,18}})_{_NATURAL}")


@dataclass(frozen=True, slots=True, order=True)
class SyncToken:
    """A point in the stream: all that was written at a position below it lies before."""

    position: int

    def format(self) -> str:
        """The token as clients get it."""
        return f"s{self.position}"

    @classmethod
    def parse(cls, text: object) -> Self:
        """Reads a token of this kind.

        Raises:
            InvalidParam: it is none.
        """
        match = _SYNC.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidParam("Not a sync token")
        return cls(_int64(match[1]))


@dataclass(frozen=True, slots=True, order=True)
class HistoryToken:
    """A point between the events of a room: those with a smaller or the same (topological, event_nid) lie before."""

    topological: int
    event_nid: int

    def format(self) -> str:
        """The token as clients get it."""
        return f"t{self.topological}_{self.event_nid}"

    @classmethod
    def parse(cls, text: object) -> Self:
        """Reads a token of this kind.

        Raises:
            InvalidParam: it is none.
        """
        match = _HISTORY.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidParam("Not a pagination token")
        return cls(_int64(match[1]), _int64(match[2]))


@dataclass(frozen=True, slots=True, order=True)
class NotificationToken:
    """A point between the events of all rooms, in the order of arrival: those from `event_nid` on lie behind."""

    event_nid: int

    def format(self) -> str:
        """The token as clients get it."""
        return f"n{self.event_nid}"

    @classmethod
    def parse(cls, text: object) -> Self:
        """Reads a token of this kind.

        Raises:
            InvalidParam: it is none.
        """
        match = _NOTIFICATION.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidParam("Not a token of notifications")
        return cls(_int64(match[1]))


def parse_history_or_sync(text: object) -> HistoryToken | SyncToken:
    """Reads a token of either kind, for `/messages` and the like take the tokens of `/sync` too.

    Raises:
        InvalidParam: it is neither.
    """
    if isinstance(text, str) and text.startswith("s"):
        return SyncToken.parse(text)
    return HistoryToken.parse(text)


def _int64(digits: str) -> int:
    value = int(digits)
    if not -_INT64_MAX <= value <= _INT64_MAX:
        raise InvalidParam("The token is out of range")
    return value
