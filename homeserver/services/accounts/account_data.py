"""What clients keep on the server for their users, for the whole account or for one room, and tags of rooms.

https://spec.matrix.org/v1.19/client-server-api/#client-config
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from homeserver.core.canonical_json import encode_canonical, parse_json
from homeserver.core.errors import BadJson, Forbidden, InvalidParam, NotFound
from homeserver.core.ids import RoomId, UserId
from homeserver.core.requester import Requester
from storage import account_data
from storage.bus.base import Bus
from storage.database import Database

FULLY_READ: Final = "m.fully_read"
PUSH_RULES: Final = "m.push_rules"
IGNORED_USER_LIST: Final = "m.ignored_user_list"
TAG: Final = "m.tag"

TYPE_BYTES_MAX: Final = 255
TAG_BYTES_MAX: Final = 255
TAGS_MAX: Final = 100

ComputedContent = Callable[[UserId], Awaitable[Mapping[str, Any]]]
"""Makes the content of a type that is not stored as account data."""


class AccountData:
    """Reads and writes account data of the asking user."""

    def __init__(self, *, db: Database, bus: Bus, computed: Mapping[str, ComputedContent] | None = None) -> None:
        """Takes its means; `computed` makes the contents of types of the account that others look after."""
        self._db = db
        self._bus = bus
        self._computed = dict(computed or {})

    async def get(self, requester: Requester, user_id: UserId, room_id: RoomId | None, type: str) -> Any:  # noqa: A002
        """The content of one piece of account data, as JSON ready to be sent.

        Raises:
            NotFound: there is none.
            Forbidden: it is another user's.
        """
        _check_own(requester, user_id)
        if room_id is None and type in self._computed:
            return await self._computed[type](user_id)
        async with self._db.connection() as conn:
            content = await account_data.find_content(conn, user_id=user_id, room_id=room_id, type=type)
        if content is None:
            raise NotFound("There is no such account data")
        return orjson.Fragment(content)

    async def put(
        self,
        requester: Requester,
        user_id: UserId,
        room_id: RoomId | None,
        type: str,  # noqa: A002
        content: Mapping[str, Any],
    ) -> None:
        """Stores one piece of account data; clients take an empty content for a removed one.

        Raises:
            Forbidden: it is another user's.
            BadJson: the server itself looks after this type (405).
            InvalidParam: the type is too long.
        """
        _check_own(requester, user_id)
        if type in (FULLY_READ, PUSH_RULES):
            raise BadJson(f"{type} cannot be set through this API", status=405)
        if not type or len(type.encode()) > TYPE_BYTES_MAX:
            raise InvalidParam(f"A type of account data has 1 to {TYPE_BYTES_MAX} bytes")
        encoded = encode_canonical(content).decode()
        async with self._db.transaction() as conn:
            position = await account_data.upsert_account_data(
                conn, user_id=user_id, room_id=room_id, type=type, content=encoded
            )
            if type == IGNORED_USER_LIST and room_id is None:
                await account_data.replace_ignored_users(conn, user_id, ignored_users_of(content, but=user_id))
        await self._bus.wake({f"user:{user_id}"}, position)

    async def list_tags(self, requester: Requester, user_id: UserId, room_id: RoomId) -> Mapping[str, Any]:
        """The tags of a room, each with its content.

        Raises:
            Forbidden: they are another user's.
        """
        _check_own(requester, user_id)
        async with self._db.connection() as conn:
            content = await account_data.find_content(conn, user_id=user_id, room_id=room_id, type=TAG)
        return _tags_of(content or "{}")

    async def put_tag(
        self, requester: Requester, user_id: UserId, room_id: RoomId, tag: str, content: Mapping[str, Any]
    ) -> None:
        """Tags a room.

        Raises:
            Forbidden: it would be another user's tag.
            InvalidParam: the tag is too long, its order is not between 0 and 1, or the room has too many tags.
        """
        _check_own(requester, user_id)
        if not tag or len(tag.encode()) > TAG_BYTES_MAX:
            raise InvalidParam(f"A tag has 1 to {TAG_BYTES_MAX} bytes")
        order = content.get("order", 0)
        if isinstance(order, bool) or not isinstance(order, int | float) or not 0 <= order <= 1:
            raise InvalidParam("The order of a tag is a number from 0 to 1")
        await self._change_tag(user_id, room_id, tag, content)

    async def remove_tag(self, requester: Requester, user_id: UserId, room_id: RoomId, tag: str) -> None:
        """Removes a tag from a room, if it is there.

        Raises:
            Forbidden: it would be another user's tag.
        """
        _check_own(requester, user_id)
        await self._change_tag(user_id, room_id, tag, None)

    async def _change_tag(self, user_id: UserId, room_id: RoomId, tag: str, content: Mapping[str, Any] | None) -> None:
        async with self._db.transaction() as conn:
            stored = await account_data.get_content_locked(conn, user_id=user_id, room_id=room_id, type=TAG)
            tags = dict(_tags_of(stored))
            if content is None:
                tags.pop(tag, None)
            else:
                tags[tag] = dict(content)
            if len(tags) > TAGS_MAX:
                raise InvalidParam(f"A room has at most {TAGS_MAX} tags")
            encoded = encode_canonical({"tags": tags}).decode()
            position = await account_data.upsert_account_data(
                conn, user_id=user_id, room_id=room_id, type=TAG, content=encoded
            )
        await self._bus.wake({f"user:{user_id}"}, position)


def ignored_users_of(content: Mapping[str, Any], *, but: UserId) -> frozenset[UserId]:
    """The users that a content of `m.ignored_user_list` names; what is no user id is passed over, and so is oneself."""
    listed = content.get("ignored_users")
    ignored: set[UserId] = set()
    for text in listed if isinstance(listed, dict) else ():
        try:
            ignored.add(UserId.parse(text))
        except InvalidParam:
            continue
    return frozenset(ignored - {but})


def _check_own(requester: Requester, user_id: UserId) -> None:
    if requester.user_id != user_id:
        raise Forbidden("Account data is only for the user itself")


def _tags_of(content: str) -> Mapping[str, Any]:
    """The tags in a content of `m.tag`, which clients may have written themselves in any form."""
    tags = parse_json(content).get("tags")
    return tags if isinstance(tags, dict) else {}
