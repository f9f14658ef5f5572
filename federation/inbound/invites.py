"""Invitations of our users, sent by the servers of those who invite them.

https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

from collections.abc import Mapping
from typing import Any, Final

from federation.inbound.handed_in import HANDED_IN, as_older_servers_know_it, handed_in
from homeserver.core.errors import InvalidParam
from homeserver.services.remote import EventJson
from homeserver.services.rooms.received_invites import ReceivedInvites
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

INVITE: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["room_version", "event"],
    "properties": {
        "room_version": {"type": "string"},
        "event": {"type": "object"},
        "invite_room_state": {"type": "array", "items": {"type": "object"}},
    },
}


def section(invites: ReceivedInvites) -> Section:
    """The endpoints over their use cases."""
    s = Section("Inviting to a room")

    @s.endpoint(
        "PUT",
        "/_matrix/federation/v2/invite/{room_id}/{event_id}",
        access=Access.SERVER,
        body=INVITE,
        rate_limit=RateLimit.INVITE,
    )
    async def send_invite_v2(request: Request) -> Response:
        """Takes in an invitation, and signs it."""
        origin, room_id, event_id, body = handed_in(request)
        signed = await invites.receive(
            origin,
            room_id,
            event_id,
            body["event"],
            room_version=body["room_version"],
            invite_room_state=body.get("invite_room_state", []),
        )
        return Response({"event": signed})

    @s.endpoint(
        "PUT",
        "/_matrix/federation/v1/invite/{room_id}/{event_id}",
        access=Access.SERVER,
        body=HANDED_IN,
        rate_limit=RateLimit.INVITE,
    )
    async def send_invite_v1(request: Request) -> Response:
        """As version 2, for rooms of versions 1 and 2, by servers that know no others."""
        origin, room_id, event_id, event = handed_in(request)
        with as_older_servers_know_it():
            signed = await invites.receive(
                origin, room_id, event_id, event, room_version=None, invite_room_state=_room_state_of(event)
            )
        return Response([200, {"event": signed}])

    return s


def _room_state_of(event: EventJson) -> list[Mapping[str, Any]]:
    """The events of the room's state that the older form of the request carries within the invitation.

    Raises:
        InvalidParam: they are none.
    """
    unsigned = event.get("unsigned", {})
    events = unsigned.get("invite_room_state", []) if isinstance(unsigned, dict) else None
    if not isinstance(events, list) or not all(isinstance(each, dict) for each in events):
        raise InvalidParam("unsigned.invite_room_state must be a list of events")
    return events
