"""Which names new accounts may have.

https://spec.matrix.org/v1.19/appendices/#user-identifiers
"""

from collections.abc import Collection

from homeserver.core.errors import InvalidParam, InvalidUsername
from homeserver.core.ids import ServerName, UserId


def folded(localpart: str) -> str:
    """A name with its capitals folded; only those of ASCII, for others fold onto letters that they are not."""
    return localpart.lower() if localpart.isascii() else localpart


def new_user_id(username: str, server_name: ServerName) -> UserId:
    """The user id that a wished name leads to.

    Raises:
        InvalidUsername: it does not follow the grammar of new user ids, or the id would be too long.
    """
    try:
        return UserId.make(folded(username), server_name)
    except InvalidParam as error:
        raise InvalidUsername(error.message) from None


def check_open_to_all(user_id: UserId, *, reserved: Collection[str]) -> None:
    """Checks that anybody may register a name.

    Raises:
        InvalidUsername: it is reserved: for guests, who have numbers, or by the operator.
    """
    if user_id.localpart.isdigit():
        raise InvalidUsername("Names of digits only are reserved for guests")
    if user_id.localpart in reserved:
        raise InvalidUsername("This name is reserved")
