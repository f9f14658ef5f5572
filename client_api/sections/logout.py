"""Logging out.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout
"""

from homeserver.services.accounts.sessions import Sessions
from homeserver.web.endpoint import EMPTY, Access, Request, Response, Section


def section(sessions: Sessions) -> Section:
    """The endpoints."""
    s = Section("Logout")

    @s.endpoint("POST", "/_matrix/client/v3/logout", access=Access.GUEST, locked_allowed=True)
    async def logout(request: Request) -> Response:
        """Ends the session that asks, and removes its device."""
        await sessions.end(request.requester)
        return EMPTY

    @s.endpoint("POST", "/_matrix/client/v3/logout/all", access=Access.GUEST, locked_allowed=True)
    async def logout_all(request: Request) -> Response:
        """Ends all sessions of the user, and removes all devices."""
        await sessions.end_all(request.requester.user_id)
        return EMPTY

    return s
