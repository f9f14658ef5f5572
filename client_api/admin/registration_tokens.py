"""Registration tokens, for administrators and their tools, as these know it from Synapse.

https://element-hq.github.io/synapse/latest/usage/administration/admin_api/registration_tokens.html
"""

from typing import Any, Final

from homeserver.services.accounts.registration_tokens import TOKEN_LENGTH, RegistrationTokens
from homeserver.web.endpoint import EMPTY, Access, Request, Response, Section
from storage.registration_tokens import RegistrationTokenRow

_TOKENS: Final = "/_synapse/admin/v1/registration_tokens"
_TOKEN: Final = "/_synapse/admin/v1/registration_tokens/{token}"  # noqa: S105 - a path

_LIMITS: Final[dict[str, Any]] = {
    "uses_allowed": {"type": ["integer", "null"], "minimum": 0},
    "expiry_time": {"type": ["integer", "null"], "minimum": 0, "description": "Milliseconds since the epoch."},
}
CREATE: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"token": {"type": "string"}, "length": {"type": "integer"}, **_LIMITS},
}
CHANGE: Final[dict[str, Any]] = {"type": "object", "properties": _LIMITS}


def section(tokens: RegistrationTokens) -> Section:
    """The endpoints."""
    s = Section("Administration of registration tokens")

    @s.endpoint("GET", _TOKENS, access=Access.ADMIN)
    async def admin_list_registration_tokens(request: Request) -> Response:
        """All registration tokens, or those that can or cannot be used."""
        valid = request.query_choice("valid", ("true", "false"))
        listed = await tokens.list_tokens(valid=None if valid is None else valid == "true")
        return Response({"registration_tokens": [_token_json(token) for token in listed]})

    @s.endpoint("POST", f"{_TOKENS}/new", access=Access.ADMIN, body=CREATE)
    async def admin_create_registration_token(request: Request) -> Response:
        """Makes a registration token."""
        body = request.body
        token = await tokens.create(
            body.get("token"),
            length=body.get("length", TOKEN_LENGTH),
            uses_allowed=body.get("uses_allowed"),
            expires_ts=body.get("expiry_time"),
        )
        return Response(_token_json(token))

    @s.endpoint("GET", _TOKEN, access=Access.ADMIN)
    async def admin_get_registration_token(request: Request) -> Response:
        """One registration token."""
        return Response(_token_json(await tokens.get(request.path["token"])))

    @s.endpoint("PUT", _TOKEN, access=Access.ADMIN, body=CHANGE)
    async def admin_update_registration_token(request: Request) -> Response:
        """Changes how often and how long a registration token may be used; what is not given stays."""
        body = request.body
        changed = await tokens.change(
            request.path["token"],
            lambda row: (body.get("uses_allowed", row.uses_allowed), body.get("expiry_time", row.expires_ts)),
        )
        return Response(_token_json(changed))

    @s.endpoint("DELETE", _TOKEN, access=Access.ADMIN)
    async def admin_delete_registration_token(request: Request) -> Response:
        """Removes a registration token."""
        await tokens.delete(request.path["token"])
        return EMPTY

    return s


def _token_json(row: RegistrationTokenRow) -> dict[str, Any]:
    return {
        "token": row.token,
        "uses_allowed": row.uses_allowed,
        "pending": row.pending,
        "completed": row.completed,
        "expiry_time": row.expires_ts,
    }
