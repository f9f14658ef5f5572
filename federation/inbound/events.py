"""Single events, states, and events by their time.

https://spec.matrix.org/v1.19/server-server-api/#retrieving-events
"""

from typing import Final

from federation.inbound.event_lists import encode_lists
from federation.inbound.origin import origin_of
from homeserver.core.clock import Clock
from homeserver.core.errors import MissingParam
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.services.rooms.events_by_time import EventsByTime
from homeserver.services.rooms.served_events import ServedEvents
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section
from storage.history import Direction

JSON_HEADERS: Final = {"Content-Type": "application/json"}


def section(events: ServedEvents, by_time: EventsByTime, *, clock: Clock, server_name: ServerName) -> Section:
    """The endpoints over their use cases."""
    s = Section("Retrieving events")

    @s.endpoint("GET", "/_matrix/federation/v1/event/{event_id}", access=Access.SERVER, rate_limit=RateLimit.FEDERATION)
    async def get_event(request: Request) -> Response:
        """One event."""
        pdu = await events.event(origin_of(request), EventId.parse(request.path["event_id"]))
        return Response({"origin": server_name, "origin_server_ts": clock.now_ms(), "pdus": [pdu]})

    @s.endpoint("GET", "/_matrix/federation/v1/state/{room_id}", access=Access.SERVER, rate_limit=RateLimit.FEDERATION)
    async def get_room_state(request: Request) -> Response:
        """The state before an event, and its auth chain."""
        event_id = EventId.parse(request.query_required("event_id"))
        state = await events.state(origin_of(request), RoomId.parse(request.path["room_id"]), event_id)
        return Response(encode_lists({"pdus": state.pdus, "auth_chain": state.auth_chain}), headers=JSON_HEADERS)

    @s.endpoint(
        "GET", "/_matrix/federation/v1/state_ids/{room_id}", access=Access.SERVER, rate_limit=RateLimit.FEDERATION
    )
    async def get_room_state_ids(request: Request) -> Response:
        """The state before an event, and its auth chain, as ids."""
        event_id = EventId.parse(request.query_required("event_id"))
        state = await events.state_ids(origin_of(request), RoomId.parse(request.path["room_id"]), event_id)
        return Response({"pdu_ids": state.pdu_ids, "auth_chain_ids": state.auth_chain_ids})

    @s.endpoint(
        "GET",
        "/_matrix/federation/v1/timestamp_to_event/{room_id}",
        access=Access.SERVER,
        rate_limit=RateLimit.FEDERATION,
    )
    async def get_event_by_timestamp(request: Request) -> Response:
        """The event closest to a time, in one direction."""
        if request.query_text("ts") is None:
            raise MissingParam("Missing query parameter ts")
        direction = request.query_choice("dir", [each.value for each in Direction])
        if direction is None:
            raise MissingParam("Missing query parameter dir")
        found = await by_time.closest_for_server(
            origin_of(request),
            RoomId.parse(request.path["room_id"]),
            timestamp_ms=request.query_integer("ts", 0),
            direction=Direction(direction),
        )
        return Response({"event_id": found.event_id, "origin_server_ts": found.origin_server_ts})

    return s
