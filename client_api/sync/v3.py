"""The `/sync` endpoint: its parameters, and the loop that answers.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from typing import Final

from homeserver.config.schema import LimitsConfig
from homeserver.core.canonical_json import parse_json
from homeserver.core.errors import InvalidParam, NotFound
from homeserver.core.filters import Filter
from homeserver.core.ids import UserId
from homeserver.core.tokens import SyncToken
from homeserver.services.accounts.filters import Filters
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.sync.longpoll import LongPoll
from homeserver.services.sync.request import StateMember, SyncRequest
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

PRESENCES: Final = ("online", "unavailable", "offline")


def section(longpoll: LongPoll, filters: Filters, presence: Presence, limits: LimitsConfig) -> Section:
    """The endpoints of the section "Syncing"."""
    s = Section("Syncing")

    @s.endpoint("GET", "/_matrix/client/v3/sync", access=Access.GUEST, rate_limit=RateLimit.READ, waits=True)
    async def sync(request: Request) -> Response:
        """The client's rooms and everything else that is new to it; waits for news where it is told to."""
        since = request.query_text("since")
        sync_request = SyncRequest(
            requester=request.requester,
            filter=await _filter(filters, request.requester.user_id, request.query_text("filter")),
            since=None if not since else SyncToken.parse(since).position,
            timeout_ms=request.query_integer("timeout", 0, maximum=limits.sync_timeout_ms_max, clamp=True),
            full_state=request.query_boolean("full_state"),
            state_member=_state_member(request),
        )
        state = request.query_choice("set_presence", PRESENCES, "online")
        with presence.syncing(request.requester, state=state or "online"):
            # Who comes online is told so in this very response.
            await presence.flush()
            return Response(await longpoll.sync(sync_request))

    return s


def _state_member(request: Request) -> StateMember:
    """Which state the client wants, and under which name."""
    if request.query_boolean("use_state_after"):
        return StateMember.AFTER
    is_proposed = request.query_boolean("org.matrix.msc4222.use_state_after")
    return StateMember.PROPOSED_AFTER if is_proposed else StateMember.BEFORE


async def _filter(filters: Filters, user_id: UserId, text: str | None) -> Filter:
    """The filter given with the request: its definition, or the id of one that the user has stored."""
    if not text:
        return Filter()
    if text.startswith("{"):
        return Filter.parse(parse_json(text))
    try:
        return await filters.get(user_id, text)
    except NotFound:
        raise InvalidParam("There is no such filter") from None
