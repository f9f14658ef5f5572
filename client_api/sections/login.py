"""Logging in.

https://spec.matrix.org/v1.19/client-server-api/#legacy-login
"""

from collections.abc import Mapping
from typing import Any, Final

from client_api.session_wish import SESSION_WISH, issued_tokens_json, session_wish
from client_api.uia import AUTH, authenticate_again
from homeserver.core.errors import MissingParam, Unknown
from homeserver.services.accounts.login import Login
from homeserver.services.accounts.uia import UserInteractiveAuth
from homeserver.services.accounts.uia_stages import PASSWORD, identified_user
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

TOKEN: Final = "m.login.token"  # noqa: S105 - the name of a type

LOGIN: Final = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {"type": "string"},
        "identifier": {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}},
        "user": {"type": "string", "deprecated": True},
        "medium": {"type": "string", "deprecated": True},
        "address": {"type": "string", "deprecated": True},
        "password": {"type": "string"},
        "token": {"type": "string"},
        **SESSION_WISH,
    },
}


def section(login: Login, uia: UserInteractiveAuth, discovery: Mapping[str, Any] | None) -> Section:
    """The endpoints; `discovery` is what `/.well-known/matrix/client` answers, if it answers."""
    s = Section("Login")

    @s.endpoint("GET", "/_matrix/client/v3/login", access=Access.PUBLIC)
    async def get_login_flows(_: Request) -> Response:
        """The ways to log in that this server knows."""
        flows: list[dict[str, Any]] = [{"type": PASSWORD}] if login.passwords_enabled else []
        return Response({"flows": [*flows, {"type": TOKEN, "get_login_token": True}]})

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/login",
        operation="login",
        access=Access.PUBLIC,
        body=LOGIN,
        rate_limit=RateLimit.LOGIN,
    )
    async def log_in(request: Request) -> Response:
        """Logs in, and opens a session on a device."""
        body, wish = request.body, session_wish(request)
        match body["type"]:
            case "m.login.password" if login.passwords_enabled:
                if "password" not in body:
                    raise MissingParam("Missing password")
                user = identified_user(body)
                if user is None:
                    raise MissingParam("Missing identifier")
                tokens = await login.with_password(user, body["password"], wish)
            case "m.login.token":
                if "token" not in body:
                    raise MissingParam("Missing token")
                tokens = await login.with_token(body["token"], wish)
            case _:
                raise Unknown("This server does not know this type of login")
        answer = issued_tokens_json(tokens)
        return Response({**answer, "well_known": dict(discovery)} if discovery is not None else answer)

    @s.endpoint(
        "POST",
        "/_matrix/client/v1/login/get_token",
        aliases=("/_matrix/client/unstable/org.matrix.msc3882/login/get_token",),
        body={"type": "object", "properties": {"auth": AUTH}},
        body_required=False,
        rate_limit=RateLimit.LOGIN,
    )
    async def generate_login_token(request: Request) -> Response:
        """Makes a token with which another device can log in as this user, once and soon."""
        await authenticate_again(uia, request)
        token = await login.make_token(request.requester.user_id)
        return Response({"login_token": token.token, "expires_in_ms": token.expires_in_ms})

    return s
