"""The query parameters that all pages have in common: tokens, direction, limit and filter.

https://spec.matrix.org/v1.19/appendices/#pagination
"""

from homeserver.core.canonical_json import parse_json
from homeserver.core.errors import MissingParam
from homeserver.core.filters import RoomEventFilter
from homeserver.core.tokens import HistoryToken, SyncToken, parse_history_or_sync
from homeserver.web.endpoint import Request
from storage.history import Direction


def token_parameter(request: Request, name: str) -> HistoryToken | SyncToken | None:
    """A point in a room's history or in the stream; None if it is not given.

    Raises:
        InvalidParam: it is neither.
    """
    text = request.query_text(name)
    return None if not text else parse_history_or_sync(text)


def direction_parameter(request: Request, default: Direction | None = None) -> Direction:
    """The parameter `dir`, which must be there if there is no default.

    Raises:
        InvalidParam: it is neither `b` nor `f`.
        MissingParam: it is not there.
    """
    text = request.query_choice("dir", tuple(Direction), default)
    if text is None:
        raise MissingParam("Missing query parameter dir")
    return Direction(text)


def filter_parameter(request: Request) -> RoomEventFilter:
    """The parameter `filter`, a `RoomEventFilter` in JSON.

    Raises:
        NotJson: it is no JSON.
        BadJson: it is no filter.
    """
    text = request.query_text("filter")
    return RoomEventFilter.parse(parse_json(text)) if text else RoomEventFilter()
