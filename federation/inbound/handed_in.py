"""Member events that other servers hand in: how the requests of `send_join`, `send_leave` and `send_knock` look.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from federation.inbound.origin import origin_of
from homeserver.core.errors import Forbidden
from homeserver.core.event_format import EVENT_BYTES_MAX
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.services.remote import EventJson
from homeserver.services.rooms.submitted_memberships import NotOfOrigin
from homeserver.web.endpoint import Request

HANDED_IN: Final[dict[str, Any]] = {"type": "object"}
"""An event. What it must have depends on the room's version, so the room says it, not this schema."""

BODY_BYTES_MAX: Final = 4 * EVENT_BYTES_MAX
"""An event that is not written canonically, and its `unsigned`, which may hold anything."""


def handed_in(request: Request) -> tuple[ServerName, RoomId, EventId, EventJson]:
    """The asking server, the room and the event that the path names, and the event itself.

    Raises:
        InvalidParam: the path does not name a room and an event.
    """
    room_id, event_id = RoomId.parse(request.path["room_id"]), EventId.parse(request.path["event_id"])
    return origin_of(request), room_id, event_id, request.body


@contextmanager
def as_older_servers_know_it() -> Iterator[None]:
    """For the older versions of these endpoints.

    COMPAT(Synapse, 1.0): an event that is not signed by the asking server was forbidden there, with 403.
    """
    try:
        yield
    except NotOfOrigin as error:
        raise Forbidden(error.message) from error
