"""What this server can do for the asking user.

https://spec.matrix.org/v1.19/client-server-api/#capabilities-negotiation
"""

from typing import Any

from homeserver.config.schema import PasswordsConfig, ProfileConfig, RoomsConfig
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.services.accounts.profiles import AVATAR_URL, DISPLAYNAME
from homeserver.web.endpoint import Request, Response, Section


def section(*, passwords: PasswordsConfig, profile: ProfileConfig, rooms: RoomsConfig) -> Section:
    """The endpoints."""
    s = Section("Capabilities negotiation")
    everybody = {
        "m.room_versions": {
            "default": rooms.default_room_version,
            "available": dict.fromkeys(ROOM_VERSIONS, "stable"),
        },
        "m.change_password": {"enabled": passwords.enabled},
        "m.set_displayname": {"enabled": profile.displayname_changes},
        "m.set_avatar_url": {"enabled": profile.avatar_url_changes},
        "m.profile_fields": _profile_fields(profile),
        "m.3pid_changes": {"enabled": False},
        # The consent that it takes is given with a password.
        "m.get_login_token": {"enabled": passwords.enabled},
        "m.forget_forced_upon_leave": {"enabled": False},
    }
    administrators = {**everybody, "m.account_moderation": {"suspend": True, "lock": True}}

    @s.endpoint("GET", "/_matrix/client/v3/capabilities")
    async def get_capabilities(request: Request) -> Response:
        """What this server can do for the asking user."""
        return Response({"capabilities": administrators if request.requester.is_admin else everybody})

    return s


def _profile_fields(profile: ProfileConfig) -> dict[str, Any]:
    changeable = {DISPLAYNAME: profile.displayname_changes, AVATAR_URL: profile.avatar_url_changes}
    disallowed = [name for name, allowed in changeable.items() if not allowed]
    return {"enabled": True, "disallowed": disallowed} if disallowed else {"enabled": True}
