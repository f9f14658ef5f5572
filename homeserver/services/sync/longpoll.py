"""Waiting for something to tell: the loop behind `/sync`.

The hub is subscribed to before the database is read, so that nothing committed in between can be missed.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from collections.abc import Mapping
from typing import Any

from homeserver.core.clock import Clock
from homeserver.core.errors import InvalidParam
from homeserver.core.tokens import SyncToken
from homeserver.services.stream.hub import Hub
from homeserver.services.sync.interests import InterestsOfUsers, keys_of
from homeserver.services.sync.listeners import Listeners
from homeserver.services.sync.request import SyncRequest, SyncWindow
from homeserver.services.sync.response import SyncResponses


class LongPoll:
    """Answers syncs, at once or when there is something to tell."""

    def __init__(self, *, hub: Hub, clock: Clock, interests: InterestsOfUsers, responses: SyncResponses) -> None:
        self._hub = hub
        self._clock = clock
        self._interests = interests
        self._listeners = Listeners(hub=hub, clock=clock)
        self._responses = responses

    async def sync(self, request: SyncRequest) -> Mapping[str, Any]:
        """One sync response, ready to be encoded; it waits up to `request.timeout_ms` for news.

        Raises:
            InvalidParam: the token is from the future: this server has not given it.
        """
        deadline = self._clock.monotonic() + request.timeout_ms / 1000
        user_id = request.requester.user_id
        remembered = self._interests.find_remembered(user_id)
        keys = keys_of(user_id, {}) if remembered is None else remembered.keys
        while True:
            with self._listeners.of(user_id, keys).wait() as waiter:
                window = _window(request, await self._bound(request))
                response = await self._responses.build(request, window)
                remaining = 0 if self._hub.is_stopping else deadline - self._clock.monotonic()
                if response.body or window.is_initial or request.full_state or remaining <= 0:
                    return {"next_batch": SyncToken(response.upto).format(), **response.beside, **response.body}
                if response.interests.keys is keys or response.interests.keys == keys:
                    await waiter.wait(remaining, upto=window.upto)
            # The user may have come to another room, whose wakes are to be waited for.
            keys = response.interests.keys

    async def _bound(self, request: SyncRequest) -> int:
        """Up to where to read: all that was ever answered, for those who will not wait for what is missing."""
        if request.since is None or request.timeout_ms == 0 or request.full_state:
            return await self._hub.bound()
        return await self._hub.recent_bound(since=request.since)


def _window(request: SyncRequest, upto: int) -> SyncWindow:
    if request.since is None:
        return SyncWindow(since=0, upto=upto, is_initial=True)
    if request.since > upto:
        raise InvalidParam("The since token is not from this server")
    return SyncWindow(since=request.since, upto=upto, is_initial=False)
