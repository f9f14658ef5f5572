"""Typing notifications.

https://spec.matrix.org/v1.19/client-server-api/#typing-notifications
"""

from typing import Final

from homeserver.core.ids import RoomId, UserId
from homeserver.services.ephemeral.typing import Typing
from homeserver.web.endpoint import EMPTY, RateLimit, Request, Response, Section

TYPING: Final = {
    "type": "object",
    "required": ["typing"],
    "properties": {"typing": {"type": "boolean"}, "timeout": {"type": "integer", "minimum": 0}},
}


def section(typing: Typing) -> Section:
    """The endpoints of the section "Typing Notifications"."""
    s = Section("Typing Notifications")

    @s.endpoint("PUT", "/_matrix/client/v3/rooms/{room_id}/typing/{user_id}", body=TYPING, rate_limit=RateLimit.WRITE)
    async def set_typing(request: Request) -> Response:
        """Says that the user is typing, for a time, or has stopped."""
        room_id, user_id = RoomId.parse(request.path["room_id"]), UserId.parse(request.path["user_id"])
        if request.body["typing"]:
            await typing.start(request.requester, room_id, user_id, timeout_ms=request.body.get("timeout"))
        else:
            await typing.stop(request.requester, room_id, user_id)
        return EMPTY

    return s
