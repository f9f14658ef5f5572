"""Upgrading rooms.

https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
"""

from homeserver.core.ids import RoomId, UserId
from homeserver.services.rooms.upgrade import RoomUpgrades
from homeserver.web.endpoint import RateLimit, Request, Response, Section


def section(upgrades: RoomUpgrades) -> Section:
    """The endpoint over its use case."""
    s = Section("Room upgrades")

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/rooms/{room_id}/upgrade",
        aliases=("/_matrix/client/r0/rooms/{room_id}/upgrade",),
        body={
            "type": "object",
            "required": ["new_version"],
            "properties": {
                "new_version": {"type": "string"},
                "additional_creators": {"type": "array", "items": {"type": "string"}},
            },
        },
        rate_limit=RateLimit.CREATE_ROOM,
        suspended_allowed=False,
    )
    async def upgrade_room(request: Request) -> Response:
        """Replaces a room by one of another version, to which its state and its aliases move."""
        new_room_id = await upgrades.upgrade(
            request.requester,
            RoomId.parse(request.path["room_id"]),
            new_version=request.body["new_version"],
            additional_creators=[UserId.parse(user_id) for user_id in request.body.get("additional_creators", ())],
        )
        return Response({"replacement_room": new_room_id})

    return s
