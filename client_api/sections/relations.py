"""The events that relate to an event.

https://spec.matrix.org/v1.19/client-server-api/#relationships-api
"""

from typing import Any, Final

from client_api.pagination import direction_parameter, token_parameter
from homeserver.core.ids import EventId, RoomId
from homeserver.services.rooms.relations import Relations, RelationsRequest
from homeserver.web.endpoint import RateLimit, Request, Response, Section
from storage.history import Direction

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 1000
_RELATIONS: Final = "/_matrix/client/v1/rooms/{room_id}/relations/{event_id}"


def section(relations: Relations) -> Section:
    """The endpoints over their use case."""
    s = Section("Event relationships")

    async def page(request: Request) -> Response:
        asked = RelationsRequest(
            rel_type=request.path.get("rel_type"),
            event_type=request.path.get("event_type"),
            direction=direction_parameter(request, Direction.BACKWARDS),
            from_token=token_parameter(request, "from"),
            to_token=token_parameter(request, "to"),
            limit=request.query_integer("limit", LIMIT_DEFAULT, minimum=1, maximum=LIMIT_MAX, clamp=True),
            recurse=None if request.query_text("recurse") is None else request.query_boolean("recurse"),
        )
        room_id, event_id = RoomId.parse(request.path["room_id"]), EventId.parse(request.path["event_id"])
        found = await relations.related_events(request.requester, room_id, event_id, asked)
        body: dict[str, Any] = {"chunk": found.chunk}
        if found.next_batch is not None:
            body["next_batch"] = found.next_batch.format()
        if asked.from_token is not None:
            body["prev_batch"] = asked.from_token.format()
        if found.recursion_depth is not None:
            body["recursion_depth"] = found.recursion_depth
        return Response(body)

    @s.endpoint("GET", _RELATIONS, rate_limit=RateLimit.READ)
    async def get_relating_events(request: Request) -> Response:
        """The events that relate to an event."""
        return await page(request)

    @s.endpoint("GET", f"{_RELATIONS}/{{rel_type}}", rate_limit=RateLimit.READ)
    async def get_relating_events_with_rel_type(request: Request) -> Response:
        """The events that relate to an event in one way."""
        return await page(request)

    @s.endpoint("GET", f"{_RELATIONS}/{{rel_type}}/{{event_type}}", rate_limit=RateLimit.READ)
    async def get_relating_events_with_rel_type_and_event_type(request: Request) -> Response:
        """The events of one type that relate to an event in one way."""
        return await page(request)

    return s
