"""Making an account.

https://spec.matrix.org/v1.19/client-server-api/#account-registration
"""

from typing import Final

from client_api.session_wish import SESSION_WISH, issued_tokens_json, session_wish
from client_api.uia import AUTH
from homeserver.services.accounts.guests import Guests
from homeserver.services.accounts.registration import Registration, RegistrationRequest
from homeserver.services.accounts.sessions import SessionWish
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

REGISTER: Final = {
    "type": "object",
    "properties": {
        "auth": AUTH,
        "username": {"type": ["string", "null"]},
        "password": {"type": ["string", "null"]},
        "inhibit_login": {"type": ["boolean", "null"]},
        "guest_access_token": {"type": ["string", "null"]},
        **SESSION_WISH,
    },
}
_PARAMETERS: Final = frozenset(REGISTER["properties"]) - {"auth"}


def section(registration: Registration, guests: Guests) -> Section:
    """The endpoints."""
    s = Section("Account registration")

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/register",
        access=Access.PUBLIC,
        body=REGISTER,
        body_required=False,
        rate_limit=RateLimit.REGISTRATION,
    )
    async def register(request: Request) -> Response:
        """Makes an account, after user-interactive authentication, or a guest's without."""
        body = request.body
        if request.query_choice("kind", ("guest", "user"), "user") == "guest":
            wish = SessionWish(
                initial_device_display_name=body.get("initial_device_display_name"),
                ip=request.ip,
                user_agent=request.user_agent,
            )
            return Response(issued_tokens_json(await guests.register(wish)))
        wanted = RegistrationRequest(
            given=any(body.get(name) is not None for name in _PARAMETERS),
            username=body.get("username"),
            password=body.get("password"),
            guest_access_token=body.get("guest_access_token"),
            inhibit_login=bool(body.get("inhibit_login")),
            wish=session_wish(request),
        )
        registered = await registration.register(wanted, body.get("auth"))
        if registered.tokens is None:
            return Response({"user_id": registered.user_id, "home_server": registered.user_id.server_name})
        return Response(issued_tokens_json(registered.tokens))

    @s.endpoint("GET", "/_matrix/client/v3/register/available", access=Access.PUBLIC, rate_limit=RateLimit.LOGIN)
    async def check_username_availability(request: Request) -> Response:
        """Whether a user name could be registered now."""
        await registration.check_available(request.query_required("username"))
        return Response({"available": True})

    @s.endpoint(
        "GET",
        "/_matrix/client/v1/register/m.login.registration_token/validity",
        aliases=(
            "/_matrix/client/unstable/org.matrix.msc3231/register/org.matrix.msc3231.login.registration_token/validity",
        ),
        access=Access.PUBLIC,
        rate_limit=RateLimit.REGISTRATION,
    )
    async def registration_token_validity(request: Request) -> Response:
        """Whether a registration token could be used now."""
        return Response({"valid": await registration.token_valid(request.query_required("token"))})

    return s
