"""Presence.

https://spec.matrix.org/v1.19/client-server-api/#presence
"""

from typing import Final

from homeserver.core.ids import UserId
from homeserver.services.ephemeral.presence import PRESENCES, Presence
from homeserver.web.endpoint import EMPTY, RateLimit, Request, Response, Section

STATUS: Final = {
    "type": "object",
    "required": ["presence"],
    "properties": {
        "presence": {"type": "string", "enum": list(PRESENCES)},
        "status_msg": {"type": ["string", "null"]},
    },
}


def section(presence: Presence) -> Section:
    """The endpoints of the section "Presence"."""
    s = Section("Presence")

    @s.endpoint("PUT", "/_matrix/client/v3/presence/{user_id}/status", body=STATUS, rate_limit=RateLimit.WRITE)
    async def set_presence(request: Request) -> Response:
        """Sets the user's own presence and status message."""
        await presence.put(
            request.requester,
            UserId.parse(request.path["user_id"]),
            state=request.body["presence"],
            status_msg=request.body.get("status_msg"),
        )
        return EMPTY

    @s.endpoint("GET", "/_matrix/client/v3/presence/{user_id}/status", rate_limit=RateLimit.READ)
    async def get_presence(request: Request) -> Response:
        """The presence of a user who shares a room with the requester."""
        return Response(await presence.get(request.requester, UserId.parse(request.path["user_id"])))

    return s
