"""Waiting for something to tell: the loop behind `/sync`.

The hub is subscribed to before the database is read, so that nothing committed in between can be missed.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from collections.abc import Mapping
from typing import Any

from homeserver.core.clock import Clock
from homeserver.core.ids import UserId
from homeserver.core.tokens import SyncToken
from homeserver.services.stream.hub import Hub
from homeserver.services.sync.request import SyncRequest, SyncWindow
from homeserver.services.sync.response import SyncResponses
from homeserver.services.sync.to_device import confirm_to_device
from storage import memberships
from storage.database import Database


class LongPoll:
    """Answers syncs, at once or when there is something to tell."""

    def __init__(self, *, db: Database, hub: Hub, clock: Clock, responses: SyncResponses) -> None:
        self._db = db
        self._hub = hub
        self._clock = clock
        self._responses = responses

    async def sync(self, request: SyncRequest) -> Mapping[str, Any]:
        """One sync response, ready to be encoded; it waits up to `request.timeout_ms` for news."""
        deadline = self._clock.monotonic() + request.timeout_ms / 1000
        user_id = request.requester.user_id
        if request.since is not None:
            async with self._db.connection() as conn:
                await confirm_to_device(conn, request.requester, request.since)
        keys = await self._keys(user_id)
        while True:
            with self._hub.subscribe(keys) as waiter:
                upto = await self._hub.bound()
                window = SyncWindow(
                    since=request.since or 0, upto=max(upto, request.since or 0), is_initial=request.since is None
                )
                body, position = await self._responses.build(request, window)
                remaining = deadline - self._clock.monotonic()
                if body or window.is_initial or request.full_state or remaining <= 0:
                    return {"next_batch": SyncToken(position).format(), **body}
                await waiter.wait(remaining, upto=window.upto)
            # A wake may mean that the user has joined another room.
            keys = await self._keys(user_id)

    async def _keys(self, user_id: UserId) -> frozenset[str]:
        async with self._db.connection() as conn:
            rooms = await memberships.list_rooms_of_user(conn, user_id, memberships=("join",))
        keys = {f"user:{user_id}"}
        for room in rooms:
            keys |= {f"room:{room.room_id}", f"presence:{room.room_id}"}
        return frozenset(keys)
