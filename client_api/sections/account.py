"""One's own account: who am I, another password, the end.

https://spec.matrix.org/v1.19/client-server-api/#legacy-account-management
"""

from typing import Any, Final

from client_api.uia import AUTH, authenticate_again
from homeserver.core.errors import Forbidden
from homeserver.core.ids import UserId
from homeserver.services.accounts.deactivation import Deactivation
from homeserver.services.accounts.password_change import PasswordChange
from homeserver.services.accounts.uia import UserInteractiveAuth
from homeserver.web.endpoint import EMPTY, Access, RateLimit, Request, Response, Section

CHANGE_PASSWORD: Final = {
    "type": "object",
    "required": ["new_password"],
    "properties": {
        "new_password": {"type": "string"},
        "logout_devices": {"type": "boolean", "default": True},
        "auth": AUTH,
    },
}
DEACTIVATE: Final = {
    "type": "object",
    "properties": {"auth": AUTH, "erase": {"type": "boolean", "default": False}, "id_server": {"type": "string"}},
}


def section(password_change: PasswordChange, deactivation: Deactivation, uia: UserInteractiveAuth) -> Section:
    """The endpoints."""
    s = Section("Account management")

    @s.endpoint("GET", "/_matrix/client/v3/account/whoami", access=Access.GUEST)
    async def get_token_owner(request: Request) -> Response:
        """Whom an access token belongs to."""
        requester = request.requester
        answer: dict[str, Any] = {"user_id": requester.user_id, "is_guest": requester.is_guest}
        if requester.device_id is not None:
            answer["device_id"] = requester.device_id
        return Response(answer)

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/account/password",
        access=Access.OPTIONAL,
        body=CHANGE_PASSWORD,
        rate_limit=RateLimit.LOGIN,
    )
    async def change_password(request: Request) -> Response:
        """Gives the account another password; without an access token, whoever knows the old one can do that."""
        new_password = request.body["new_password"]
        password_change.check(new_password)
        user_id = _somebody(await authenticate_again(uia, request))
        await password_change.change(
            user_id,
            new_password,
            logout_devices=request.body.get("logout_devices", True),
            requester=request.caller,
        )
        return EMPTY

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/account/deactivate",
        access=Access.OPTIONAL,
        body=DEACTIVATE,
        body_required=False,
        rate_limit=RateLimit.LOGIN,
    )
    async def deactivate_account(request: Request) -> Response:
        """Ends the account for good."""
        user_id = _somebody(await authenticate_again(uia, request))
        await deactivation.deactivate(user_id, erase=request.body.get("erase", False))
        return Response({"id_server_unbind_result": "success"})

    return s


def _somebody(user_id: UserId | None) -> UserId:
    if user_id is None:
        raise Forbidden("Nobody was authenticated")
    return user_id
