"""Joining, inviting, knocking, leaving, forgetting, kicking, banning.

https://spec.matrix.org/v1.19/client-server-api/#room-membership
"""

from collections.abc import Sequence
from typing import Any, Final

from homeserver.core.errors import MissingParam, ThreepidDenied
from homeserver.core.ids import RoomAlias, RoomId, ServerName, UserId
from homeserver.services.rooms.alias_lookup import AliasLookup
from homeserver.services.rooms.membership import Memberships
from homeserver.services.rooms.membership_changes import Action
from homeserver.web.endpoint import EMPTY, Access, RateLimit, Request, Response, Section

_REASON: Final[dict[str, Any]] = {"type": "string"}
REASON: Final[dict[str, Any]] = {"type": "object", "properties": {"reason": _REASON}}
JOIN: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"reason": _REASON, "third_party_signed": {"type": "object"}},
}
TARGET: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["user_id"],
    "properties": {"user_id": {"type": "string"}, "reason": _REASON},
}
# By user id, or by something that an identity server knows.
INVITE: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "reason": _REASON,
        **{name: {"type": "string"} for name in ("user_id", "id_server", "id_access_token", "medium", "address")},
    },
}
_NOT_CONTENT: Final = frozenset(
    {"reason", "third_party_signed", "membership", "displayname", "avatar_url", "join_authorised_via_users_server"}
)
_ROOM: Final = "/_matrix/client/v3/rooms/{room_id}"
_OLD_ROOM: Final = "/_matrix/client/r0/rooms/{room_id}"


def section(memberships: Memberships, aliases: AliasLookup) -> Section:
    """The endpoints over their use cases."""
    s = Section("Room membership")

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/join/{room_id_or_alias}",
        aliases=("/_matrix/client/r0/join/{room_id_or_alias}",),
        access=Access.GUEST,
        body=JOIN,
        body_required=False,
        rate_limit=RateLimit.JOIN,
        suspended_allowed=False,
    )
    async def join_room(request: Request) -> Response:
        """Joins a room by its id or an alias."""
        _refuse_third_party(request)
        room_id, via = await _room_named(aliases, request)
        await memberships.join(
            request.requester, room_id, via=via, reason=request.body.get("reason"), content=_further_content(request)
        )
        return Response({"room_id": room_id})

    @s.endpoint(
        "POST",
        f"{_ROOM}/join",
        aliases=(f"{_OLD_ROOM}/join",),
        access=Access.GUEST,
        body=JOIN,
        body_required=False,
        rate_limit=RateLimit.JOIN,
        suspended_allowed=False,
    )
    async def join_room_by_id(request: Request) -> Response:
        """Joins a room by its id."""
        _refuse_third_party(request)
        room_id = RoomId.parse(request.path["room_id"])
        await memberships.join(
            request.requester, room_id, reason=request.body.get("reason"), content=_further_content(request)
        )
        return Response({"room_id": room_id})

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/knock/{room_id_or_alias}",
        aliases=("/_matrix/client/r0/knock/{room_id_or_alias}",),
        body=REASON,
        body_required=False,
        rate_limit=RateLimit.JOIN,
        suspended_allowed=False,
    )
    async def knock_room(request: Request) -> Response:
        """Asks for an invitation to a room, named by its id or an alias."""
        room_id, via = await _room_named(aliases, request)
        await memberships.knock(request.requester, room_id, via=via, reason=request.body.get("reason"))
        return Response({"room_id": room_id})

    @s.endpoint(
        "POST",
        f"{_ROOM}/invite",
        aliases=(f"{_OLD_ROOM}/invite",),
        body=INVITE,
        rate_limit=RateLimit.INVITE,
        suspended_allowed=False,
    )
    async def invite_user(request: Request) -> Response:
        """Invites a user. There is no identity server here, so e-mail addresses and phone numbers are refused."""
        room_id = RoomId.parse(request.path["room_id"])
        if "user_id" not in request.body:
            if "medium" in request.body or "address" in request.body:
                raise ThreepidDenied("Invitations by e-mail address or phone number are not supported")
            raise MissingParam("Missing user_id")
        target = UserId.parse(request.body["user_id"])
        await memberships.invite(request.requester, room_id, target, reason=request.body.get("reason"))
        return EMPTY

    @s.endpoint(
        "POST",
        f"{_ROOM}/leave",
        aliases=(f"{_OLD_ROOM}/leave",),
        access=Access.GUEST,
        body=REASON,
        body_required=False,
        rate_limit=RateLimit.WRITE,
    )
    async def leave_room(request: Request) -> Response:
        """Leaves a room, rejects an invitation, or takes back a knock."""
        room_id, requester = RoomId.parse(request.path["room_id"]), request.requester
        await memberships.act(Action.LEAVE, requester, room_id, requester.user_id, reason=request.body.get("reason"))
        return EMPTY

    @s.endpoint(
        "POST",
        f"{_ROOM}/forget",
        aliases=(f"{_OLD_ROOM}/forget",),
        body={"type": "object"},
        body_required=False,
        rate_limit=RateLimit.WRITE,
    )
    async def forget_room(request: Request) -> Response:
        """Forgets a room that the user has left."""
        await memberships.forget(request.requester, RoomId.parse(request.path["room_id"]))
        return EMPTY

    async def act(action: Action, request: Request) -> Response:
        room_id, target = RoomId.parse(request.path["room_id"]), UserId.parse(request.body["user_id"])
        await memberships.act(action, request.requester, room_id, target, reason=request.body.get("reason"))
        return EMPTY

    @s.endpoint(
        "POST",
        f"{_ROOM}/kick",
        aliases=(f"{_OLD_ROOM}/kick",),
        body=TARGET,
        rate_limit=RateLimit.WRITE,
        suspended_allowed=False,
    )
    async def kick(request: Request) -> Response:
        """Removes a user from a room, or takes back an invitation."""
        return await act(Action.KICK, request)

    @s.endpoint(
        "POST",
        f"{_ROOM}/ban",
        aliases=(f"{_OLD_ROOM}/ban",),
        body=TARGET,
        rate_limit=RateLimit.WRITE,
        suspended_allowed=False,
    )
    async def ban(request: Request) -> Response:
        """Bans a user from a room, whether or not it is in there."""
        return await act(Action.BAN, request)

    @s.endpoint(
        "POST",
        f"{_ROOM}/unban",
        aliases=(f"{_OLD_ROOM}/unban",),
        body=TARGET,
        rate_limit=RateLimit.WRITE,
        suspended_allowed=False,
    )
    async def unban(request: Request) -> Response:
        """Ends the ban of a user."""
        return await act(Action.UNBAN, request)

    return s


async def _room_named(aliases: AliasLookup, request: Request) -> tuple[RoomId, Sequence[ServerName]]:
    """The room that a path names, and servers through which it may be entered."""
    room_id_or_alias = request.path["room_id_or_alias"]
    # The older name counts only where the newer one is not used.
    named = request.query.get("via") or request.query.get("server_name", ())
    via = [ServerName.parse(server_name) for server_name in named]
    if not room_id_or_alias.startswith("#"):
        return RoomId.parse(room_id_or_alias), via
    room_id, servers = await aliases.resolve(RoomAlias.parse(room_id_or_alias), asked_anew=True)
    return room_id, [*via, *servers]


def _further_content(request: Request) -> dict[str, Any]:
    """What else a client wants in its member event; what the server itself writes there is not the client's to say."""
    return {name: value for name, value in request.body.items() if name not in _NOT_CONTENT}


def _refuse_third_party(request: Request) -> None:
    if "third_party_signed" in request.body:
        raise ThreepidDenied("Invitations by e-mail address or phone number are not supported")
