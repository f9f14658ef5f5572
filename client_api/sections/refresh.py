"""Exchanging a refresh token for new tokens.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3refresh
"""

from typing import Any, Final

from homeserver.services.accounts.sessions import Sessions
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

REFRESH: Final = {
    "type": "object",
    "required": ["refresh_token"],
    "properties": {"refresh_token": {"type": "string"}},
}


def section(sessions: Sessions) -> Section:
    """The endpoints."""
    s = Section("Refreshing access tokens")

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/refresh",
        aliases=("/_matrix/client/v1/refresh", "/_matrix/client/unstable/org.matrix.msc2918.v1/refresh"),
        access=Access.PUBLIC,
        body=REFRESH,
        rate_limit=RateLimit.WRITE,
    )
    async def refresh(request: Request) -> Response:
        """Exchanges a refresh token for a new access token and refresh token."""
        tokens = await sessions.refresh(request.body["refresh_token"])
        answer: dict[str, Any] = {"access_token": tokens.access_token, "refresh_token": tokens.refresh_token}
        if tokens.expires_in_ms is not None:
            answer["expires_in_ms"] = tokens.expires_in_ms
        return Response(answer)

    return s
