"""How clients followed their rooms before `/sync`, and how rooms are looked into without joining them.

https://spec.matrix.org/v1.19/client-server-api/#room-previews
"""

from typing import Final

from homeserver.config.schema import LimitsConfig
from homeserver.core.ids import EventId, RoomId
from homeserver.core.tokens import SyncToken
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.rooms.context import EventContexts
from homeserver.services.rooms.event_stream import EventStream
from homeserver.services.rooms.initial_sync import InitialSync
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

TIMEOUT_MS_DEFAULT: Final = 30_000
EVENTS_DEFAULT: Final = 100
EVENTS_MAX: Final = 1000
MESSAGES_DEFAULT: Final = 10
MESSAGES_MAX: Final = 100
_CLIENT: Final = "/_matrix/client/v3"
_OLD_CLIENT: Final = "/_matrix/client/r0"


def section(
    stream: EventStream, initial: InitialSync, contexts: EventContexts, presence: Presence, limits: LimitsConfig
) -> Section:
    """The endpoints over their use cases."""
    s = Section("Deprecated sync and room previews")

    @s.endpoint(
        "GET",
        f"{_CLIENT}/events",
        aliases=(f"{_OLD_CLIENT}/events",),
        access=Access.GUEST,
        rate_limit=RateLimit.READ,
        waits=True,
    )
    async def get_events(request: Request) -> Response:
        """What is new in the user's rooms, or in one room that it may read; waits for it."""
        room_id, token = request.query_text("room_id"), request.query_text("from")
        with presence.syncing(request.requester, state="online"):
            await presence.flush()
            page = await stream.listen(
                request.requester,
                room_id=None if room_id is None else RoomId.parse(room_id),
                since=None if not token else SyncToken.parse(token).position,
                timeout_ms=min(request.query_integer("timeout", TIMEOUT_MS_DEFAULT), limits.sync_timeout_ms_max),
                limit=request.query_integer("limit", EVENTS_DEFAULT, minimum=1, maximum=EVENTS_MAX, clamp=True),
            )
        start, end = SyncToken(page.start).format(), SyncToken(page.end).format()
        return Response({"start": start, "end": end, "chunk": page.chunk})

    @s.endpoint(
        "GET",
        f"{_CLIENT}/events/{{event_id}}",
        aliases=(f"{_OLD_CLIENT}/events/{{event_id}}",),
        rate_limit=RateLimit.READ,
    )
    async def get_one_event(request: Request) -> Response:
        """One event, whatever room it is in."""
        return Response(await contexts.event_of_any_room(request.requester, EventId.parse(request.path["event_id"])))

    @s.endpoint("GET", f"{_CLIENT}/initialSync", aliases=(f"{_OLD_CLIENT}/initialSync",), rate_limit=RateLimit.READ)
    async def initial_sync(request: Request) -> Response:
        """All rooms of the user, each with its state and last messages."""
        snapshot = await initial.of_user(
            request.requester, limit=_messages(request), archived=request.query_boolean("archived")
        )
        return Response(snapshot)

    @s.endpoint(
        "GET",
        f"{_CLIENT}/rooms/{{room_id}}/initialSync",
        aliases=(f"{_OLD_CLIENT}/rooms/{{room_id}}/initialSync",),
        access=Access.GUEST,
        rate_limit=RateLimit.READ,
    )
    async def room_initial_sync(request: Request) -> Response:
        """One room with its state and last messages."""
        room_id = RoomId.parse(request.path["room_id"])
        return Response(await initial.of_room(request.requester, room_id, limit=_messages(request)))

    return s


def _messages(request: Request) -> int:
    """How many messages of each room are wanted."""
    return request.query_integer("limit", MESSAGES_DEFAULT, maximum=MESSAGES_MAX, clamp=True)
