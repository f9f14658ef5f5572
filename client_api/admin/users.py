"""Accounts, for administrators and their tools, as these know it from Synapse.

https://element-hq.github.io/synapse/latest/admin_api/user_admin_api.html
"""

from typing import Any, Final

from homeserver.core.errors import Forbidden, InvalidParam, NotFound
from homeserver.core.ids import UserId
from homeserver.services.accounts.administration import AccountChange, AccountDetails, Administration, NewAccount
from homeserver.web.endpoint import Access, Request, Response, Section

_USER: Final = "/_synapse/admin/v2/users/{user_id}"

_TEXT: Final = {"type": ["string", "null"]}
CHANGE_USER: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "password": _TEXT,
        "logout_devices": {"type": "boolean", "default": True},
        "displayname": _TEXT,
        "avatar_url": _TEXT,
        "admin": {"type": "boolean"},
        "deactivated": {"type": "boolean"},
        "locked": {"type": "boolean"},
        "user_type": _TEXT,
        "threepids": {"type": "array", "maxItems": 0, "description": "Third-party identifiers are not supported."},
        "external_ids": {"type": "array", "maxItems": 0, "description": "External identifiers are not supported."},
    },
}
LOGIN_AS: Final = {"type": "object", "properties": {"valid_until_ms": {"type": ["integer", "null"], "minimum": 0}}}
DEACTIVATE: Final = {"type": "object", "properties": {"erase": {"type": "boolean", "default": False}}}


def section(administration: Administration) -> Section:
    """The endpoints."""
    s = Section("Administration of users")

    @s.endpoint("GET", _USER, access=Access.ADMIN)
    async def admin_get_user(request: Request) -> Response:
        """An account."""
        user_id = administration.user_id_named(request.path["user_id"])
        return Response(_details_json(await administration.get_user(user_id)))

    @s.endpoint("PUT", _USER, access=Access.ADMIN, body=CHANGE_USER)
    async def admin_put_user(request: Request) -> Response:
        """Changes an account, or makes it."""
        user_id = administration.user_id_named(request.path["user_id"])
        change = _change(request, user_id)
        try:
            await administration.get_user(user_id)
        except NotFound:
            user_id = await administration.create_user(_new_account(request, user_id))
            await administration.change_user(user_id, change)
            status = 201
        else:
            await administration.change_user(user_id, change)
            status = 200
        return Response(_details_json(await administration.get_user(user_id)), status=status)

    @s.endpoint(
        "POST",
        "/_synapse/admin/v1/users/{user_id}/login",
        access=Access.ADMIN,
        body=LOGIN_AS,
        body_required=False,
    )
    async def admin_login_as_user(request: Request) -> Response:
        """Opens a session in which the administrator acts for a user."""
        user_id = administration.user_id_named(request.path["user_id"])
        if user_id == request.requester.user_id:
            raise InvalidParam("Administrators log in as others, not as themselves")
        tokens = await administration.login_as(user_id, valid_until_ms=request.body.get("valid_until_ms"))
        return Response({"access_token": tokens.access_token})

    @s.endpoint(
        "POST",
        "/_synapse/admin/v1/deactivate/{user_id}",
        access=Access.ADMIN,
        body=DEACTIVATE,
        body_required=False,
    )
    async def admin_deactivate_user(request: Request) -> Response:
        """Ends an account for good."""
        user_id = administration.user_id_named(request.path["user_id"])
        await administration.deactivate(user_id, erase=request.body.get("erase", False))
        return Response({"id_server_unbind_result": "success"})

    return s


def _change(request: Request, user_id: UserId) -> AccountChange:
    body = request.body
    is_admin = body.get("admin")
    if user_id == request.requester.user_id and (is_admin is False or body.get("deactivated")):
        raise Forbidden("Administrators do not demote or deactivate themselves")
    return AccountChange(
        password=body.get("password"),
        logout_devices=body.get("logout_devices", True),
        profile={name: body[name] or None for name in ("displayname", "avatar_url") if name in body},
        is_admin=is_admin,
        locked=body.get("locked"),
        deactivated=body.get("deactivated"),
        user_type=body.get("user_type"),
        clear_user_type="user_type" in body and body["user_type"] is None,
    )


def _new_account(request: Request, user_id: UserId) -> NewAccount:
    return NewAccount(
        username=user_id.localpart,
        password=request.body.get("password"),
        displayname=request.body.get("displayname"),
        is_admin=request.body.get("admin", False),
        user_type=request.body.get("user_type"),
    )


def _details_json(details: AccountDetails) -> dict[str, Any]:
    user = details.user
    return {
        "name": user.user_id,
        "displayname": details.displayname,
        "avatar_url": details.avatar_url,
        "is_guest": user.is_guest,
        "admin": user.is_admin,
        "deactivated": user.deactivated,
        "erased": user.erased,
        "locked": user.locked,
        "suspended": user.suspended,
        "shadow_banned": False,
        "creation_ts": user.created_ts,
        "last_seen_ts": details.last_seen_ts,
        "appservice_id": user.appservice_id,
        "user_type": user.user_type,
        "threepids": [],
        "external_ids": [],
    }
