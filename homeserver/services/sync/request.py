"""What a sync is asked, as a value.

https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from dataclasses import dataclass
from enum import StrEnum

from homeserver.core.filters import Filter
from homeserver.core.requester import Requester


class StateMember(StrEnum):
    """The names of the state of a room in a response: before its timeline, or after it.

    A client that asks by the name that the proposal had looks for the answer under that name alone.
    """

    BEFORE = "state"
    AFTER = "state_after"
    PROPOSED_AFTER = "org.matrix.msc4222.state_after"


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """One call of `/sync`.

    Attributes:
        since: the position that the client has; None for its first sync.
        timeout_ms: how long to wait for something to tell.
        full_state: all state of all rooms is wanted, whatever `since` says.
        state_member: what the response calls the state of a room, by which the client says which state it wants.
    """

    requester: Requester
    filter: Filter
    since: int | None
    timeout_ms: int
    full_state: bool
    state_member: StateMember

    @property
    def use_state_after(self) -> bool:
        """Whether state is wanted as it is after the timeline, not before it."""
        return self.state_member is not StateMember.BEFORE


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
