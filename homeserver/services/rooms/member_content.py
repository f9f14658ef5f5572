"""What the member events of local users say about them, and who of them may be invited.

https://spec.matrix.org/v1.19/client-server-api/#mroommember
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

import orjson

from homeserver.core.errors import InviteBlocked
from homeserver.core.ids import UserId
from storage.account_data import list_contents
from storage.database import Connection
from storage.profiles import list_profiles

_PROFILE_FIELDS: Final = ("displayname", "avatar_url")
_INVITE_PERMISSION: Final = "m.invite_permission_config"


async def read_profiles(conn: Connection, user_ids: Collection[UserId]) -> dict[UserId, dict[str, str]]:
    """The part of users' profiles that stands in their member events. Users of other servers have none here."""
    if not user_ids:
        return {}
    profiles = await list_profiles(conn, list(user_ids))
    return {
        user_id: {
            name: value
            for name, encoded in profiles.get(user_id, {}).items()
            if name in _PROFILE_FIELDS and isinstance(value := orjson.loads(encoded), str)
        }
        for user_id in user_ids
    }


def member_content(
    membership: str, *, profile: Mapping[str, str] | None = None, reason: str | None = None, is_direct: bool = False
) -> dict[str, Any]:
    """The content of a member event."""
    content: dict[str, Any] = {"membership": membership, **(profile or {})}
    if reason is not None:
        content["reason"] = reason
    if is_direct:
        content["is_direct"] = True
    return content


async def check_invitable(conn: Connection, user_ids: Collection[UserId]) -> None:
    """Checks that none of some users refuses all invitations.

    Raises:
        InviteBlocked: one does.

    https://spec.matrix.org/v1.19/client-server-api/#invite-permission
    """
    if not user_ids:
        return
    contents = await list_contents(conn, user_ids=list(user_ids), type=_INVITE_PERMISSION)
    for user_id, content in contents.items():
        if orjson.loads(content).get("default_action") == "block":
            raise InviteBlocked(f"{user_id} does not want invitations")
