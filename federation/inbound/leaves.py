"""Leaves of other servers' users: they leave rooms that this server is in, reject invitations, take back knocks.

https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites
"""

from federation.inbound.handed_in import BODY_BYTES_MAX, HANDED_IN, as_older_servers_know_it, handed_in
from federation.inbound.origin import origin_of
from homeserver.core.ids import RoomId, UserId
from homeserver.services.rooms.resident_templates import ResidentTemplates
from homeserver.services.rooms.submitted_memberships import SubmittedMemberships
from homeserver.web.endpoint import EMPTY, Access, RateLimit, Request, Response, Section


def section(templates: ResidentTemplates, memberships: SubmittedMemberships) -> Section:
    """The endpoints over their use cases."""
    s = Section("Leaving rooms")

    @s.endpoint(
        "GET",
        "/_matrix/federation/v1/make_leave/{room_id}/{user_id}",
        access=Access.SERVER,
        rate_limit=RateLimit.FEDERATION,
    )
    async def make_leave(request: Request) -> Response:
        """A leave to be signed by the leaving server."""
        room_id, user_id = RoomId.parse(request.path["room_id"]), UserId.parse(request.path["user_id"])
        template = await templates.make_leave(origin_of(request), room_id, user_id)
        return Response({"room_version": template.room_version.identifier, "event": template.event})

    @s.endpoint(
        "PUT",
        "/_matrix/federation/v2/send_leave/{room_id}/{event_id}",
        access=Access.SERVER,
        body=HANDED_IN,
        body_bytes_max=BODY_BYTES_MAX,
        rate_limit=RateLimit.FEDERATION,
    )
    async def send_leave_v2(request: Request) -> Response:
        """Makes a signed leave a part of the room."""
        await memberships.accept(*handed_in(request), membership="leave")
        return EMPTY

    @s.endpoint(
        "PUT",
        "/_matrix/federation/v1/send_leave/{room_id}/{event_id}",
        access=Access.SERVER,
        body=HANDED_IN,
        body_bytes_max=BODY_BYTES_MAX,
        rate_limit=RateLimit.FEDERATION,
    )
    async def send_leave_v1(request: Request) -> Response:
        """As version 2, for servers that do not know that yet."""
        with as_older_servers_know_it():
            await memberships.accept(*handed_in(request), membership="leave")
        return Response([200, {}])

    return s
