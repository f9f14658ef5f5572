"""User-interactive authentication at the edge: what of a request its session is bound to.

https://spec.matrix.org/v1.19/client-server-api/#user-interactive-api-in-the-rest-api
"""

from typing import Any, Final

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.ids import UserId
from homeserver.services.accounts.uia import Flow, UiaOperation, UserInteractiveAuth
from homeserver.services.accounts.uia_stages import PASSWORD
from homeserver.web.endpoint import Request

AUTH: Final[dict[str, Any]] = {
    "type": ["object", "null"],
    "description": "The stage of the user-interactive authentication that the client attempts.",
    "properties": {"type": {"type": "string"}, "session": {"type": "string"}},
}
"""The schema of `auth` in a body."""

PASSWORD_FLOWS: Final[tuple[Flow, ...]] = ((PASSWORD,),)


async def authenticate_again(
    uia: UserInteractiveAuth, request: Request, flows: tuple[Flow, ...] = PASSWORD_FLOWS
) -> UserId | None:
    """Lets a request through whose user has just passed the stages of a flow, for this request alone.

    Returns:
        who was authenticated: the caller if there is one, else whom the stages have shown.

    Raises:
        AuthenticationNeeded: there are stages to pass.
        Forbidden: the session was begun for another request, or somebody else was authenticated.
    """
    parameters = {name: value for name, value in request.body.items() if name != "auth"}
    operation = UiaOperation(
        name=request.operation,
        flows=flows,
        user_id=request.caller.user_id if request.caller is not None else None,
        parameters=encode_canonical([dict(request.path), parameters]),
        ip=request.ip,
    )
    return await uia.authenticate(operation, request.body.get("auth"))
