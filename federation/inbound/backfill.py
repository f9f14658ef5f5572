"""History, and events that another server has missed.

https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from typing import Any, Final

from federation.inbound.origin import origin_of
from homeserver.core.clock import Clock
from homeserver.core.errors import InvalidParam, MissingParam
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.services.rooms.served_history import BACKFILL_MAX, MISSING_EVENTS_MAX, ServedHistory
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

_STARTS_MAX: Final = 100
_MISSING_DEFAULT: Final = 10
_EVENT_IDS: Final = {"type": "array", "maxItems": 1000, "items": {"type": "string", "maxLength": 255}}
MISSING_EVENTS: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["earliest_events", "latest_events"],
    "properties": {
        "limit": {"type": "integer", "minimum": 0},
        "min_depth": {"type": "integer", "maximum": 2**63 - 1},
        "earliest_events": _EVENT_IDS,
        "latest_events": {**_EVENT_IDS, "maxItems": _STARTS_MAX},
    },
}


def section(history: ServedHistory, *, clock: Clock, server_name: ServerName) -> Section:
    """The endpoints over their use cases."""
    s = Section("Backfilling and retrieving missing events")

    @s.endpoint(
        "GET", "/_matrix/federation/v1/backfill/{room_id}", access=Access.SERVER, rate_limit=RateLimit.FEDERATION
    )
    async def backfill_room(request: Request) -> Response:
        """Events and what precedes them."""
        starts = request.query.get("v", ())
        if not starts:
            raise MissingParam("Missing query parameter v")
        if len(starts) > _STARTS_MAX:
            raise InvalidParam(f"Backfilling starts from {_STARTS_MAX} events at most")
        if request.query_text("limit") is None:
            raise MissingParam("Missing query parameter limit")
        pdus = await history.backfill(
            origin_of(request),
            RoomId.parse(request.path["room_id"]),
            [EventId.parse(each) for each in starts],
            limit=request.query_integer("limit", 0, maximum=BACKFILL_MAX, clamp=True),
        )
        return Response({"origin": server_name, "origin_server_ts": clock.now_ms(), "pdus": pdus})

    @s.endpoint(
        "POST",
        "/_matrix/federation/v1/get_missing_events/{room_id}",
        access=Access.SERVER,
        rate_limit=RateLimit.FEDERATION,
        body=MISSING_EVENTS,
        writes=False,
    )
    async def get_missing_previous_events(request: Request) -> Response:
        """Events between those that a server has and those whose previous events it has not."""
        events = await history.missing_events(
            origin_of(request),
            RoomId.parse(request.path["room_id"]),
            earliest=[EventId.parse(each) for each in request.body["earliest_events"]],
            latest=[EventId.parse(each) for each in request.body["latest_events"]],
            limit=min(request.body.get("limit", _MISSING_DEFAULT), MISSING_EVENTS_MAX),
            min_depth=max(0, request.body.get("min_depth", 0)),
        )
        return Response({"events": events})

    return s
