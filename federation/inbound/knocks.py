"""Knocks of other servers' users on rooms that this server is in.

https://spec.matrix.org/v1.19/server-server-api/#knocking-rooms
"""

from federation.inbound.handed_in import BODY_BYTES_MAX, HANDED_IN, handed_in
from federation.inbound.origin import origin_of
from homeserver.core.errors import MissingParam
from homeserver.core.ids import RoomId, UserId
from homeserver.services.rooms.resident_joins import ResidentJoins
from homeserver.services.rooms.resident_templates import ResidentTemplates
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section


def section(templates: ResidentTemplates, joins: ResidentJoins) -> Section:
    """The endpoints over their use cases."""
    s = Section("Knocking on rooms")

    @s.endpoint(
        "GET",
        "/_matrix/federation/v1/make_knock/{room_id}/{user_id}",
        access=Access.SERVER,
        rate_limit=RateLimit.FEDERATION,
    )
    async def make_knock(request: Request) -> Response:
        """A knock to be signed by the knocking server."""
        room_id, user_id = RoomId.parse(request.path["room_id"]), UserId.parse(request.path["user_id"])
        versions = request.query.get("ver")
        if not versions:
            raise MissingParam("Missing query parameter ver")
        template = await templates.make_knock(origin_of(request), room_id, user_id, versions=versions)
        return Response({"room_version": template.room_version.identifier, "event": template.event})

    @s.endpoint(
        "PUT",
        "/_matrix/federation/v1/send_knock/{room_id}/{event_id}",
        access=Access.SERVER,
        body=HANDED_IN,
        body_bytes_max=BODY_BYTES_MAX,
        rate_limit=RateLimit.FEDERATION,
    )
    async def send_knock(request: Request) -> Response:
        """Makes a signed knock a part of the room; answers with what tells the room."""
        return Response({"knock_room_state": await joins.knock(*handed_in(request))})

    return s
