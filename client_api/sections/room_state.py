"""Setting and reading the state of rooms.

https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room
"""

from typing import Final

import orjson

from client_api.sections.room_send import massaged_timestamp
from homeserver.core.ids import RoomId
from homeserver.core.pdu import StateKey
from homeserver.services.rooms.state import RoomState
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

_STATE: Final = "/_matrix/client/v3/rooms/{room_id}/state"
_OLD_STATE: Final = "/_matrix/client/r0/rooms/{room_id}/state"


def section(state: RoomState) -> Section:
    """The endpoints over their use cases."""
    s = Section("Room state")

    @s.endpoint("GET", _STATE, aliases=(_OLD_STATE,), access=Access.GUEST, rate_limit=RateLimit.READ)
    async def get_room_state(request: Request) -> Response:
        """All state events; for who has left the room, those at that moment."""
        events = await state.get_all(request.requester, RoomId.parse(request.path["room_id"]))
        return Response(orjson.Fragment(f"[{','.join(events)}]"))

    @s.endpoint(
        "GET",
        f"{_STATE}/{{event_type}}/{{state_key:path}}",
        aliases=(f"{_OLD_STATE}/{{event_type}}/{{state_key:path}}",),
        access=Access.GUEST,
        rate_limit=RateLimit.READ,
    )
    async def get_room_state_with_key(request: Request) -> Response:
        """The content of a state event, or with `format=event` the whole event."""
        wanted = request.query_choice("format", ("content", "event"), "content")
        event = await state.get(request.requester, RoomId.parse(request.path["room_id"]), _slot(request))
        return Response(orjson.Fragment(event.client_json) if wanted == "event" else event.content)

    @s.endpoint(
        "PUT",
        f"{_STATE}/{{event_type}}/{{state_key:path}}",
        aliases=(f"{_OLD_STATE}/{{event_type}}/{{state_key:path}}",),
        access=Access.GUEST,
        body={"type": "object"},
        rate_limit=RateLimit.WRITE,
    )
    async def set_room_state_with_key(request: Request) -> Response:
        """Sets a state event; what is so already stays as it is."""
        event_id = await state.set(
            request.requester,
            RoomId.parse(request.path["room_id"]),
            _slot(request),
            request.body,
            origin_server_ts=massaged_timestamp(request),
        )
        return Response({"event_id": event_id})

    return s


def _slot(request: Request) -> StateKey:
    return (request.path["event_type"], request.path["state_key"])
