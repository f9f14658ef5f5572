"""Reporting rooms, events and users.

https://spec.matrix.org/v1.19/client-server-api/#reporting-content
"""

from typing import Any, Final

from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.services.rooms.reports import Reports
from homeserver.web.endpoint import EMPTY, RateLimit, Request, Response, Section

_REASON: Final = {"type": "string", "maxLength": 4096}
REPORT: Final[dict[str, Any]] = {"type": "object", "required": ["reason"], "properties": {"reason": _REASON}}
# The score has left the specification; older clients still give one.
EVENT_REPORT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"reason": _REASON, "score": {"type": "integer", "minimum": -100, "maximum": 0}},
}


def section(reports: Reports) -> Section:
    """The endpoints over their use cases."""
    s = Section("Reporting content")

    @s.endpoint("POST", "/_matrix/client/v3/rooms/{room_id}/report", body=REPORT, rate_limit=RateLimit.REPORT)
    async def report_room(request: Request) -> Response:
        """Reports a room."""
        room_id = RoomId.parse(request.path["room_id"])
        await reports.report_room(request.requester, room_id, reason=request.body["reason"])
        return EMPTY

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/rooms/{room_id}/report/{event_id}",
        aliases=("/_matrix/client/r0/rooms/{room_id}/report/{event_id}",),
        body=EVENT_REPORT,
        rate_limit=RateLimit.REPORT,
    )
    async def report_event(request: Request) -> Response:
        """Reports an event of a room that the user is in."""
        room_id, event_id = RoomId.parse(request.path["room_id"]), EventId.parse(request.path["event_id"])
        await reports.report_event(
            request.requester, room_id, event_id, reason=request.body.get("reason"), score=request.body.get("score")
        )
        return EMPTY

    @s.endpoint("POST", "/_matrix/client/v3/users/{user_id}/report", body=REPORT, rate_limit=RateLimit.REPORT)
    async def report_user(request: Request) -> Response:
        """Reports a user."""
        user_id = UserId.parse(request.path["user_id"])
        await reports.report_user(request.requester, user_id, reason=request.body["reason"])
        return EMPTY

    return s
