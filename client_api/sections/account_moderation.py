"""Locking, suspending and looking at accounts, for administrators.

https://spec.matrix.org/v1.19/client-server-api/#server-administration
"""

from collections.abc import Sequence
from typing import Any

from homeserver.core.ids import UserId
from homeserver.services.accounts.moderation import Moderation
from homeserver.web.endpoint import Request, Response, Section
from storage.devices import DeviceRow

_LOCK = "/_matrix/client/v1/admin/lock/{user_id}"
_LOCK_ALIASES = ("/_matrix/client/unstable/uk.timedout.msc4323/admin/lock/{user_id}",)
_SUSPEND = "/_matrix/client/v1/admin/suspend/{user_id}"
_SUSPEND_ALIASES = ("/_matrix/client/unstable/uk.timedout.msc4323/admin/suspend/{user_id}",)


def section(moderation: Moderation) -> Section:
    """The endpoints."""
    s = Section("Server administration")

    @s.endpoint("GET", "/_matrix/client/v3/admin/whois/{user_id}")
    async def get_who_is(request: Request) -> Response:
        """Where a user's devices were last seen, for the user itself and for administrators."""
        user_id = UserId.parse(request.path["user_id"])
        return Response(_whois_json(user_id, await moderation.whois(request.requester, user_id)))

    @s.endpoint("GET", _LOCK, aliases=_LOCK_ALIASES)
    async def get_admin_lock_user(request: Request) -> Response:
        """Whether an account is locked."""
        user_id = UserId.parse(request.path["user_id"])
        return Response({"locked": await moderation.is_locked(request.requester, user_id)})

    @s.endpoint("PUT", _LOCK, aliases=_LOCK_ALIASES, body=_flag("locked"))
    async def set_admin_lock_user(request: Request) -> Response:
        """Locks or unlocks an account."""
        locked = request.body["locked"]
        await moderation.lock(request.requester, UserId.parse(request.path["user_id"]), locked=locked)
        return Response({"locked": locked})

    @s.endpoint("GET", _SUSPEND, aliases=_SUSPEND_ALIASES)
    async def get_admin_suspend_user(request: Request) -> Response:
        """Whether an account is suspended."""
        user_id = UserId.parse(request.path["user_id"])
        return Response({"suspended": await moderation.is_suspended(request.requester, user_id)})

    @s.endpoint("PUT", _SUSPEND, aliases=_SUSPEND_ALIASES, body=_flag("suspended"))
    async def set_admin_suspend_user(request: Request) -> Response:
        """Suspends an account, or ends that."""
        suspended = request.body["suspended"]
        await moderation.suspend(request.requester, UserId.parse(request.path["user_id"]), suspended=suspended)
        return Response({"suspended": suspended})

    return s


def _flag(name: str) -> dict[str, Any]:
    return {"type": "object", "required": [name], "properties": {name: {"type": "boolean"}}}


def _whois_json(user_id: UserId, devices: Sequence[DeviceRow]) -> dict[str, Any]:
    return {
        "user_id": user_id,
        "devices": {
            device.device_id: {
                "sessions": [
                    {
                        "connections": [
                            {
                                "ip": device.last_seen_ip,
                                "last_seen": device.last_seen_ts,
                                "user_agent": device.last_seen_user_agent,
                            }
                        ]
                    }
                ]
            }
            for device in devices
        },
    }
