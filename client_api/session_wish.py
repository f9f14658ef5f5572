"""What logins and registrations have in common: how a client says what session it wants, and what it is given.

https://spec.matrix.org/v1.19/client-server-api/#relationship-between-access-tokens-and-devices
"""

from typing import Any, Final

from homeserver.core.ids import DeviceId
from homeserver.services.accounts.sessions import IssuedTokens, SessionWish
from homeserver.web.endpoint import Request

SESSION_WISH: Final[dict[str, Any]] = {
    "device_id": {"type": ["string", "null"]},
    "initial_device_display_name": {"type": ["string", "null"]},
    "refresh_token": {"type": ["boolean", "null"]},
}
"""The members of a body's schema."""


def session_wish(request: Request) -> SessionWish:
    """The session that a client wants.

    Raises:
        InvalidParam: the device id is wrong.
    """
    device_id = request.body.get("device_id")
    return SessionWish(
        device_id=DeviceId.parse(device_id) if device_id is not None else None,
        initial_device_display_name=request.body.get("initial_device_display_name"),
        refreshable=bool(request.body.get("refresh_token")),
        ip=request.ip,
        user_agent=request.user_agent,
    )


def issued_tokens_json(tokens: IssuedTokens) -> dict[str, Any]:
    """The tokens of a new session as a client is told them."""
    answer: dict[str, Any] = {
        "user_id": tokens.user_id,
        "home_server": tokens.user_id.server_name,
        "access_token": tokens.access_token,
        "device_id": tokens.device_id,
    }
    if tokens.expires_in_ms is not None:
        answer["expires_in_ms"] = tokens.expires_in_ms
    if tokens.refresh_token is not None:
        answer["refresh_token"] = tokens.refresh_token
    return answer
