"""The list of notifications.

https://spec.matrix.org/v1.19/client-server-api/#listing-notifications
"""

from typing import Any, Final

from homeserver.core.tokens import NotificationToken
from homeserver.services.rooms.notifications import Notification, Notifications
from homeserver.web.endpoint import RateLimit, Request, Response, Section

_LIMIT_DEFAULT: Final = 20
_LIMIT_MAX: Final = 100


def section(notifications: Notifications) -> Section:
    """The endpoint."""
    s = Section("Notifications")

    @s.endpoint("GET", "/_matrix/client/v3/notifications", rate_limit=RateLimit.READ)
    async def get_notifications(request: Request) -> Response:
        """The events that the user was notified of, the newest first."""
        from_text = request.query_text("from")
        page = await notifications.page(
            request.requester,
            from_token=None if from_text is None else NotificationToken.parse(from_text),
            limit=request.query_integer("limit", _LIMIT_DEFAULT, minimum=1, maximum=_LIMIT_MAX, clamp=True),
            only_highlights=request.query_text("only") == "highlight",
        )
        body: dict[str, Any] = {"notifications": [_notification(each) for each in page.notifications]}
        if page.next_token is not None:
            body["next_token"] = page.next_token.format()
        return Response(body)

    return s


def _notification(notification: Notification) -> dict[str, Any]:
    return {
        "actions": notification.actions,
        "event": notification.event,
        # Rules have had no profile since rules for devices were given up, but clients look for the member.
        "profile_tag": "",
        "read": notification.read,
        "room_id": notification.room_id,
        "ts": notification.ts,
    }
