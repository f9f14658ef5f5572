"""What a sync is asked, as a value.

https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from dataclasses import dataclass

from homeserver.core.filters import Filter
from homeserver.core.requester import Requester


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """One call of `/sync`.

    Attributes:
        since: the position that the client has; None for its first sync.
        timeout_ms: how long to wait for something to tell.
        full_state: all state of all rooms is wanted, whatever `since` says.
        use_state_after: state is wanted as it is after the timeline, not before it.
    """

    requester: Requester
    filter: Filter
    since: int | None
    timeout_ms: int
    full_state: bool
    use_state_after: bool


@dataclass(frozen=True, slots=True)
class SyncWindow:
    """The part of the stream that one response covers: positions from `since` on and below `upto`.

    Attributes:
        since: 0 for a first sync.
        is_initial: there was no `since`.
    """

    since: int
    upto: int
    is_initial: bool
