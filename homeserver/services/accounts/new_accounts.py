"""Making an account, whoever asks for it: the user and the display name that it begins with."""

from typing import Final

import orjson

from homeserver.core.errors import UserInUse
from homeserver.core.ids import UserId
from storage import profiles, users
from storage.database import Connection

DISPLAYNAME: Final = "displayname"


async def insert_account(
    conn: Connection,
    user_id: UserId,
    *,
    password_hash: str | None,
    created_ts: int,
    displayname: str | None = None,
    is_admin: bool = False,
    user_type: str | None = None,
    accepted_terms: str | None = None,
) -> int | None:
    """Makes an account whose display name is its local part, unless another is given.

    Returns:
        the position of its profile.

    Raises:
        UserInUse: there is such an account, or there was.
    """
    made = await users.insert_user(
        conn,
        user_id,
        password_hash=password_hash,
        created_ts=created_ts,
        is_admin=is_admin,
        user_type=user_type,
        accepted_terms=accepted_terms,
    )
    if not made:
        raise UserInUse("This user name is taken")
    name = orjson.dumps(displayname or user_id.localpart).decode()
    return await profiles.upsert_fields(conn, user_id=user_id, values={DISPLAYNAME: name})
