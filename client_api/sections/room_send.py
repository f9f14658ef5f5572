"""Sending message events.

https://spec.matrix.org/v1.19/client-server-api/#sending-events-to-a-room
"""

from homeserver.core.ids import RoomId
from homeserver.services.rooms.send import MessageEvents
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section


def section(messages: MessageEvents) -> Section:
    """The endpoint over its use case."""
    s = Section("Sending events")

    @s.endpoint(
        "PUT",
        "/_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}",
        aliases=("/_matrix/client/r0/rooms/{room_id}/send/{event_type}/{txn_id}",),
        access=Access.GUEST,
        body={"type": "object"},
        rate_limit=RateLimit.MESSAGE,
    )
    async def send_message(request: Request) -> Response:
        """Sends a message event; a repeated request is answered with the event of the first one."""
        event_id = await messages.send(
            request.requester,
            RoomId.parse(request.path["room_id"]),
            request.path["event_type"],
            request.body,
            transaction_id=request.path["txn_id"],
            origin_server_ts=massaged_timestamp(request),
        )
        return Response({"event_id": event_id})

    return s


def massaged_timestamp(request: Request) -> int | None:
    """The event's time that an application service asks for; others cannot choose it.

    https://spec.matrix.org/v1.19/application-service-api/#timestamp-massaging
    """
    if request.requester.appservice_id is None or request.query_text("ts") is None:
        return None
    return request.query_integer("ts", 0)
