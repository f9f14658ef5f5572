"""Redacting events.

https://spec.matrix.org/v1.19/client-server-api/#redactions
"""

from client_api.sections.room_send import massaged_timestamp
from homeserver.core.ids import EventId, RoomId
from homeserver.services.rooms.send import MessageEvents
from homeserver.web.endpoint import RateLimit, Request, Response, Section


def section(messages: MessageEvents) -> Section:
    """The endpoint over its use case."""
    s = Section("Redactions")

    @s.endpoint(
        "PUT",
        "/_matrix/client/v3/rooms/{room_id}/redact/{event_id}/{txn_id}",
        aliases=("/_matrix/client/r0/rooms/{room_id}/redact/{event_id}/{txn_id}",),
        body={"type": "object", "properties": {"reason": {"type": "string"}}},
        body_required=False,
        rate_limit=RateLimit.WRITE,
    )
    async def redact_event(request: Request) -> Response:
        """Takes the content from an event; a repeated request is answered with the redaction of the first one."""
        event_id = await messages.redact(
            request.requester,
            RoomId.parse(request.path["room_id"]),
            EventId.parse(request.path["event_id"]),
            reason=request.body.get("reason"),
            transaction_id=request.path["txn_id"],
            origin_server_ts=massaged_timestamp(request),
        )
        return Response({"event_id": event_id})

    return s
