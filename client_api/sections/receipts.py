"""Receipts.

https://spec.matrix.org/v1.19/client-server-api/#receipts
"""

from typing import Final

from homeserver.core.errors import InvalidParam
from homeserver.core.ids import EventId, RoomId
from homeserver.services.ephemeral.receipts import Receipts
from homeserver.web.endpoint import EMPTY, RateLimit, Request, Response, Section

# A wrong thread_id has an error of its own, so it is not the schema's affair.
RECEIPT: Final = {"type": "object", "properties": {"thread_id": {}}}


def section(receipts: Receipts) -> Section:
    """The endpoints of the section "Receipts"."""
    s = Section("Receipts")

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/rooms/{room_id}/receipt/{receipt_type}/{event_id}",
        body=RECEIPT,
        body_required=False,
        rate_limit=RateLimit.WRITE,
    )
    async def post_receipt(request: Request) -> Response:
        """Says up to which event the user has read, in the whole room or in one thread."""
        await receipts.put(
            request.requester,
            RoomId.parse(request.path["room_id"]),
            EventId.parse(request.path["event_id"]),
            receipt_type=request.path["receipt_type"],
            thread_id=_thread_id(request),
        )
        return EMPTY

    return s


def _thread_id(request: Request) -> str | None:
    if "thread_id" not in request.body:
        return None
    thread_id = request.body["thread_id"]
    if not isinstance(thread_id, str) or not thread_id:
        raise InvalidParam("thread_id must be a non-empty string")
    return thread_id
