"""Registration by shared secret, as tools know it from Synapse.

https://element-hq.github.io/synapse/latest/admin_api/register_api.html
"""

from typing import Any, Final

from client_api.session_wish import issued_tokens_json
from homeserver.services.accounts.sessions import SessionWish
from homeserver.services.accounts.shared_secret import SharedSecretRegistration, SharedSecretRequest
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

_PATH: Final = "/_synapse/admin/v1/register"

REGISTER: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["nonce", "username", "password", "mac"],
    "properties": {
        "nonce": {"type": "string"},
        "username": {"type": "string"},
        "displayname": {"type": ["string", "null"]},
        "password": {"type": "string"},
        "admin": {"type": "boolean", "default": False},
        "user_type": {"type": ["string", "null"]},
        "mac": {"type": "string"},
    },
}


def section(registration: SharedSecretRegistration) -> Section:
    """The endpoints."""
    s = Section("Registration by shared secret")

    @s.endpoint("GET", _PATH, access=Access.PUBLIC, rate_limit=RateLimit.WRITE)
    async def get_registration_nonce(_: Request) -> Response:
        """A nonce for one registration."""
        return Response({"nonce": await registration.new_nonce()})

    @s.endpoint("POST", _PATH, access=Access.PUBLIC, body=REGISTER, rate_limit=RateLimit.WRITE)
    async def register_by_shared_secret(request: Request) -> Response:
        """Makes an account for somebody who knows the shared secret."""
        body = request.body
        tokens = await registration.register(
            SharedSecretRequest(
                nonce=body["nonce"],
                mac=body["mac"],
                username=body["username"],
                password=body["password"],
                displayname=body.get("displayname"),
                is_admin=body.get("admin", False),
                user_type=body.get("user_type"),
                wish=SessionWish(ip=request.ip, user_agent=request.user_agent),
            )
        )
        return Response(issued_tokens_json(tokens))

    return s
