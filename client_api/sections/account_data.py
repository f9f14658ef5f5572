"""Account data and tags.

https://spec.matrix.org/v1.19/client-server-api/#client-config
"""

from homeserver.core.ids import RoomId, UserId
from homeserver.services.accounts.account_data import AccountData
from homeserver.web.endpoint import EMPTY, RateLimit, Request, Response, Section

_OBJECT = {"type": "object"}
_TAG = {"type": "object", "properties": {"order": {"type": "number", "minimum": 0, "maximum": 1}}}


def section(account_data: AccountData) -> Section:
    """The endpoints."""
    s = Section("Account data")

    @s.endpoint("GET", "/_matrix/client/v3/user/{user_id}/account_data/{type}")
    async def get_account_data(request: Request) -> Response:
        """One piece of the account's data."""
        user_id = UserId.parse(request.path["user_id"])
        return Response(await account_data.get(request.requester, user_id, None, request.path["type"]))

    @s.endpoint(
        "PUT",
        "/_matrix/client/v3/user/{user_id}/account_data/{type}",
        body=_OBJECT,
        rate_limit=RateLimit.WRITE,
    )
    async def set_account_data(request: Request) -> Response:
        """Stores one piece of the account's data."""
        user_id = UserId.parse(request.path["user_id"])
        await account_data.put(request.requester, user_id, None, request.path["type"], request.body)
        return EMPTY

    @s.endpoint("GET", "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/account_data/{type}")
    async def get_account_data_per_room(request: Request) -> Response:
        """One piece of the account's data for a room."""
        user_id, room_id = _user_and_room(request)
        return Response(await account_data.get(request.requester, user_id, room_id, request.path["type"]))

    @s.endpoint(
        "PUT",
        "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/account_data/{type}",
        body=_OBJECT,
        rate_limit=RateLimit.WRITE,
    )
    async def set_account_data_per_room(request: Request) -> Response:
        """Stores one piece of the account's data for a room."""
        user_id, room_id = _user_and_room(request)
        await account_data.put(request.requester, user_id, room_id, request.path["type"], request.body)
        return EMPTY

    @s.endpoint("GET", "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/tags")
    async def get_room_tags(request: Request) -> Response:
        """The tags that the user has given a room."""
        user_id, room_id = _user_and_room(request)
        return Response({"tags": await account_data.list_tags(request.requester, user_id, room_id)})

    @s.endpoint(
        "PUT",
        "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/tags/{tag}",
        body=_TAG,
        body_bytes_max=16 * 1024,
        rate_limit=RateLimit.WRITE,
    )
    async def set_room_tag(request: Request) -> Response:
        """Tags a room."""
        user_id, room_id = _user_and_room(request)
        await account_data.put_tag(request.requester, user_id, room_id, request.path["tag"], request.body)
        return EMPTY

    @s.endpoint("DELETE", "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/tags/{tag}", rate_limit=RateLimit.WRITE)
    async def delete_room_tag(request: Request) -> Response:
        """Removes a tag from a room."""
        user_id, room_id = _user_and_room(request)
        await account_data.remove_tag(request.requester, user_id, room_id, request.path["tag"])
        return EMPTY

    return s


def _user_and_room(request: Request) -> tuple[UserId, RoomId]:
    return UserId.parse(request.path["user_id"]), RoomId.parse(request.path["room_id"])
