"""Read markers.

https://spec.matrix.org/v1.19/client-server-api/#read-and-unread-markers
"""

from typing import Final

from homeserver.core.ids import EventId, RoomId
from homeserver.services.ephemeral.receipts import FULLY_READ, READ, READ_PRIVATE, Receipts
from homeserver.web.endpoint import EMPTY, RateLimit, Request, Response, Section

TYPES: Final = (FULLY_READ, READ, READ_PRIVATE)
MARKERS: Final = {"type": "object", "properties": {marker: {"type": "string"} for marker in TYPES}}


def section(receipts: Receipts) -> Section:
    """The endpoints of the section "Read Markers"."""
    s = Section("Read Markers")

    @s.endpoint("POST", "/_matrix/client/v3/rooms/{room_id}/read_markers", body=MARKERS, rate_limit=RateLimit.WRITE)
    async def set_read_marker(request: Request) -> Response:
        """Moves the user's fully read marker and, if they are given, its read receipts."""
        markers = {marker: EventId.parse(request.body[marker]) for marker in TYPES if marker in request.body}
        await receipts.put_markers(request.requester, RoomId.parse(request.path["room_id"]), markers)
        return EMPTY

    return s
