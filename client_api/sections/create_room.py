"""Creating rooms.

https://spec.matrix.org/v1.19/client-server-api/#creation
"""

from typing import Any, Final

from homeserver.services.rooms.create import RoomCreation, RoomRequest
from homeserver.web.endpoint import RateLimit, Request, Response, Section

_INVITE_3PID: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["id_server", "id_access_token", "medium", "address"],
    "properties": {name: {"type": "string"} for name in ("id_server", "id_access_token", "medium", "address")},
}
CREATE_ROOM: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "visibility": {"enum": ["public", "private"]},
        "room_alias_name": {"type": "string"},
        "name": {"type": "string"},
        "topic": {"type": "string"},
        "invite": {"type": "array", "items": {"type": "string"}},
        "invite_3pid": {"type": "array", "items": _INVITE_3PID},
        "room_version": {"type": "string"},
        "creation_content": {"type": "object"},
        "initial_state": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "content"],
                "properties": {
                    "type": {"type": "string"},
                    "state_key": {"type": "string"},
                    "content": {"type": "object"},
                },
            },
        },
        "preset": {"enum": ["private_chat", "public_chat", "trusted_private_chat"]},
        "is_direct": {"type": "boolean"},
        "power_level_content_override": {"type": "object"},
    },
}


def section(rooms: RoomCreation) -> Section:
    """The endpoint over its use case."""
    s = Section("Room creation")

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/createRoom",
        aliases=("/_matrix/client/r0/createRoom",),
        body=CREATE_ROOM,
        rate_limit=RateLimit.CREATE_ROOM,
        suspended_allowed=False,
    )
    async def create_room(request: Request) -> Response:
        """Creates a room with its first events, all of them or none."""
        body = request.body
        wanted = RoomRequest(
            is_public=body.get("visibility") == "public",
            alias_localpart=body.get("room_alias_name"),
            name=body.get("name"),
            topic=body.get("topic"),
            invite=body.get("invite", ()),
            invites_by_3pid=bool(body.get("invite_3pid")),
            room_version=body.get("room_version"),
            creation_content=body.get("creation_content", {}),
            initial_state=body.get("initial_state", ()),
            preset=body.get("preset"),
            is_direct=body.get("is_direct", False),
            power_level_content_override=body.get("power_level_content_override", {}),
        )
        return Response({"room_id": await rooms.create(request.requester, wanted)})

    return s
