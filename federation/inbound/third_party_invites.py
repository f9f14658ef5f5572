"""Invitations of addresses: what identity servers and the servers of those who have the addresses ask for.

https://spec.matrix.org/v1.19/server-server-api/#third-party-invites
"""

from typing import Any, Final

from federation.inbound.origin import origin_of
from homeserver.core.ids import RoomId, UserId
from homeserver.services.rooms.third_party_invites import BoundInvite, ThirdPartyInvites
from homeserver.web.endpoint import EMPTY, Access, RateLimit, Request, Response, Section

_INVITES_MAX: Final = 50
_STRING: Final = {"type": "string"}

EXCHANGE: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "room_id", "sender", "state_key", "content"],
    "properties": {
        **dict.fromkeys(("type", "room_id", "sender", "state_key"), _STRING),
        "content": {
            "type": "object",
            "required": ["membership", "third_party_invite"],
            "properties": {"membership": _STRING, "third_party_invite": {"type": "object", "required": ["signed"]}},
        },
    },
}
ON_BIND: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["medium", "address", "mxid", "invites"],
    "properties": {
        **dict.fromkeys(("medium", "address", "mxid"), _STRING),
        "invites": {
            "type": "array",
            "maxItems": _INVITES_MAX,
            "items": {
                "type": "object",
                "required": ["medium", "address", "mxid", "room_id", "sender", "signed"],
                "properties": {
                    **dict.fromkeys(("medium", "address", "mxid", "room_id", "sender"), _STRING),
                    "signed": {"type": "object", "required": ["mxid", "token", "signatures"]},
                },
            },
        },
    },
}


def section(invites: ThirdPartyInvites) -> Section:
    """The endpoints over their use cases."""
    s = Section("Third-party invites")

    @s.endpoint(
        "PUT",
        "/_matrix/federation/v1/exchange_third_party_invite/{room_id}",
        access=Access.SERVER,
        body=EXCHANGE,
        rate_limit=RateLimit.INVITE,
    )
    async def exchange_third_party_invite(request: Request) -> Response:
        """Invites a user of the asking server, whose address was invited by a user of this one."""
        await invites.exchange(origin_of(request), RoomId.parse(request.path["room_id"]), request.body)
        return EMPTY

    # COMPAT(Sydent): the identity server that is in use sends it as POST.
    @s.endpoint(
        "POST",
        "/_matrix/federation/v1/3pid/onbind",
        access=Access.PUBLIC,
        body=ON_BIND,
        rate_limit=RateLimit.INVITE,
        operation="on_bind_third_party_identifier_by_post",
    )
    @s.endpoint(
        "PUT",
        "/_matrix/federation/v1/3pid/onbind",
        access=Access.PUBLIC,
        body=ON_BIND,
        rate_limit=RateLimit.INVITE,
    )
    async def on_bind_third_party_identifier(request: Request) -> Response:
        """Tells that an address is now known to be a local user's, who was invited by it."""
        body = request.body
        waiting = [
            BoundInvite(RoomId.parse(each["room_id"]), UserId.parse(each["sender"]), each["signed"])
            for each in body["invites"]
        ]
        await invites.bind(UserId.parse(body["mxid"]), waiting)
        return EMPTY

    return s
