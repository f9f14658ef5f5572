"""The one gate that every way to a session passes: passwords, login tokens, refresh tokens, repeated registrations,
administrators who act for a user.

https://spec.matrix.org/v1.19/client-server-api/#account-moderation
"""

from homeserver.core.errors import Forbidden, UserDeactivated, UserLocked
from storage.users import UserRow


def may_login(user: UserRow | None) -> UserRow:
    """The user, if it may have a session. A suspended one may.

    Raises:
        Forbidden: there is no such account.
        UserDeactivated: it has ended.
        UserLocked: it is locked.
    """
    if user is None:
        raise Forbidden("There is no such account")
    if user.deactivated:
        raise UserDeactivated("This account has been deactivated")
    if user.locked:
        raise UserLocked
    return user
