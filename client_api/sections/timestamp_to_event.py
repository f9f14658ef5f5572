"""Jumping to a date.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
"""

from client_api.pagination import direction_parameter
from homeserver.core.errors import MissingParam
from homeserver.core.ids import RoomId
from homeserver.services.rooms.events_by_time import EventsByTime
from homeserver.web.endpoint import RateLimit, Request, Response, Section


def section(events: EventsByTime) -> Section:
    """The endpoint over its use case."""
    s = Section("Events by time")

    @s.endpoint("GET", "/_matrix/client/v1/rooms/{room_id}/timestamp_to_event", rate_limit=RateLimit.READ)
    async def get_event_by_timestamp(request: Request) -> Response:
        """The event closest to a time, in one direction."""
        if request.query_text("ts") is None:
            raise MissingParam("Missing query parameter ts")
        found = await events.closest(
            request.requester,
            RoomId.parse(request.path["room_id"]),
            timestamp_ms=request.query_integer("ts", 0),
            direction=direction_parameter(request),
        )
        return Response({"event_id": found.event_id, "origin_server_ts": found.origin_server_ts})

    return s
