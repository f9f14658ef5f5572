"""The members of rooms.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers
"""

from typing import Final

import orjson

from client_api.pagination import token_parameter
from homeserver.core.ids import RoomId
from homeserver.services.rooms.members import MemberProfile, RoomMembers
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

MEMBERSHIPS: Final = ("join", "invite", "knock", "leave", "ban")


def section(members: RoomMembers) -> Section:
    """The endpoints over their use cases."""
    s = Section("Room members")

    @s.endpoint(
        "GET",
        "/_matrix/client/v3/rooms/{room_id}/members",
        aliases=("/_matrix/client/r0/rooms/{room_id}/members",),
        access=Access.GUEST,
        rate_limit=RateLimit.READ,
    )
    async def get_members_by_room(request: Request) -> Response:
        """The member events of a room."""
        chunk = await members.members(
            request.requester,
            RoomId.parse(request.path["room_id"]),
            at=token_parameter(request, "at"),
            membership=request.query_choice("membership", MEMBERSHIPS),
            not_membership=request.query_choice("not_membership", MEMBERSHIPS),
        )
        return Response({"chunk": orjson.Fragment(f"[{','.join(chunk)}]")})

    @s.endpoint(
        "GET",
        "/_matrix/client/v3/rooms/{room_id}/joined_members",
        aliases=("/_matrix/client/r0/rooms/{room_id}/joined_members",),
        rate_limit=RateLimit.READ,
    )
    async def get_joined_members_by_room(request: Request) -> Response:
        """The users who are in a room, with their names and pictures there."""
        joined = await members.joined_members(request.requester, RoomId.parse(request.path["room_id"]))
        return Response({"joined": {str(user_id): _profile(profile) for user_id, profile in joined.items()}})

    return s


def _profile(profile: MemberProfile) -> dict[str, str]:
    fields = {"display_name": profile.display_name, "avatar_url": profile.avatar_url}
    return {name: value for name, value in fields.items() if value is not None}
