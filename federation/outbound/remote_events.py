"""Events and states that other servers have (`homeserver.services.remote.RemoteEvents`).

https://spec.matrix.org/v1.19/server-server-api/#retrieving-events
https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal

from federation.outbound.answer_shapes import event_ids as event_ids_in
from federation.outbound.answer_shapes import events, member, nonsense, read_large
from federation.outbound.client import FederationClient
from federation.wire.paths import Query, federation_path
from homeserver.core.canonical_json import INTEGER_MAX
from homeserver.core.errors import InvalidParam
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.services.remote import EventJson, StateEvents, StateIds

EVENT_SECONDS: Final = 20.0
EVENTS_SECONDS: Final = 60.0
STATE_SECONDS: Final = 180.0
EVENT_BYTES_MAX: Final = 1024 * 1024
STATE_IDS_BYTES_MAX: Final = 64 * 1024 * 1024
STATE_BYTES_MAX: Final = 200 * 1024 * 1024


class FederationEvents:
    """Asks one server at a time; whom to ask next is the caller's to decide."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def event(self, via: ServerName, event_id: EventId) -> EventJson:
        """One event."""
        path = federation_path("v1", "event", event_id)
        answer = await self._client.get(via, path, timeout_seconds=EVENT_SECONDS, bytes_max=EVENT_BYTES_MAX)
        found = events(via, answer, "pdus")
        if len(found) != 1:
            raise nonsense(via)
        return found[0]

    async def get_missing_events(
        self,
        via: ServerName,
        room_id: RoomId,
        *,
        earliest: Collection[EventId],
        latest: Collection[EventId],
        limit: int,
        min_depth: int = 0,
    ) -> Sequence[EventJson]:
        """Events between those that are known and those whose previous events are not."""
        body = {
            "earliest_events": list(earliest),
            "latest_events": list(latest),
            "limit": limit,
            "min_depth": min_depth,
        }
        path = federation_path("v1", "get_missing_events", room_id)
        answer = await self._client.post(via, path, body, timeout_seconds=EVENTS_SECONDS)
        return events(via, answer, "events", limit=limit)

    async def backfill(
        self, via: ServerName, room_id: RoomId, event_ids: Collection[EventId], *, limit: int
    ) -> Sequence[EventJson]:
        """The given events and what precedes them."""
        query: Query = {"v": list(event_ids), "limit": str(limit)}
        path = federation_path("v1", "backfill", room_id)
        answer = await self._client.get(via, path, query=query, timeout_seconds=EVENTS_SECONDS)
        return events(via, answer, "pdus", limit=limit)

    async def event_auth(self, via: ServerName, room_id: RoomId, event_id: EventId) -> Sequence[EventJson]:
        """The auth chain of an event."""
        answer = await self._large(via, federation_path("v1", "event_auth", room_id, event_id), {})
        return events(via, answer, "auth_chain")

    async def state_ids(self, via: ServerName, room_id: RoomId, event_id: EventId) -> StateIds:
        """The state before an event, as ids."""
        answer = await self._client.get(
            via,
            federation_path("v1", "state_ids", room_id),
            query={"event_id": event_id},
            timeout_seconds=EVENTS_SECONDS,
            bytes_max=STATE_IDS_BYTES_MAX,
        )
        return StateIds(event_ids_in(via, answer, "pdu_ids"), event_ids_in(via, answer, "auth_chain_ids"))

    async def state(self, via: ServerName, room_id: RoomId, event_id: EventId) -> StateEvents:
        """The state before an event, whole."""
        answer = await self._large(via, federation_path("v1", "state", room_id), {"event_id": event_id})
        return StateEvents(events(via, answer, "pdus"), events(via, answer, "auth_chain"))

    async def timestamp_to_event(
        self, via: ServerName, room_id: RoomId, *, ts: int, direction: Literal["f", "b"]
    ) -> tuple[EventId, int]:
        """The event nearest to a time (milliseconds) in a direction, and its own time."""
        answer = await self._client.get(
            via,
            federation_path("v1", "timestamp_to_event", room_id),
            query={"ts": str(ts), "dir": direction},
            timeout_seconds=EVENT_SECONDS,
            bytes_max=EVENT_BYTES_MAX,
        )
        origin_server_ts = member(via, answer, "origin_server_ts")
        if type(origin_server_ts) is not int or not 0 <= origin_server_ts <= INTEGER_MAX:
            raise nonsense(via)
        try:
            return EventId.parse(member(via, answer, "event_id")), origin_server_ts
        except InvalidParam as error:
            raise nonsense(via) from error

    async def _large(self, via: ServerName, path: str, query: Query) -> Mapping[str, Any]:
        chunks = self._client.get_streamed(
            via, path, query=query, timeout_seconds=STATE_SECONDS, bytes_max=STATE_BYTES_MAX
        )
        return await read_large(via, chunks)
