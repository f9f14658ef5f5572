"""Events that this server's users want to send, before they become part of a room."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.room_versions import RoomVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """A stored event that gets another text by an event that is added: the target of a redaction, for example.

    Attributes:
        revision: the one that the new text was made from.
        pdu: the event as it will be.
        unsigned: what is said about it from now on; for the target, `redacted_because` is added.
        is_target: it is what the added event redacts.
        is_current: it is a part of the current state.
    """

    event_nid: int
    revision: int
    pdu: Pdu
    unsigned: Mapping[str, Any]
    is_target: bool
    is_current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An event to be made.

    Attributes:
        state_key: None for an event that is no state.
        redacts: what an `m.room.redaction` redacts.
        origin_server_ts: milliseconds since the epoch; None for now.
        device_id: the device that sends it, for `transaction_id`.
        transaction_id: the request's; a second event of the same device with it is refused.
        thread_root: the thread that it belongs to, known from the event that it relates to.
        rewrites: the stored events that get another text by this one.
    """

    type: str
    sender: UserId
    content: Mapping[str, Any]
    state_key: str | None = None
    redacts: EventId | None = None
    origin_server_ts: int | None = None
    device_id: str | None = None
    transaction_id: str | None = None
    thread_root: EventId | None = None
    rewrites: Sequence[Rewrite] = ()

    @property
    def state_slot(self) -> StateKey | None:
        """Where the event will stand in the state, if it is a state event."""
        return None if self.state_key is None else (self.type, self.state_key)


@dataclass(frozen=True, slots=True)
class StateEntry:
    """An event of a room's current state."""

    event_nid: int
    pdu: Pdu


class CurrentState(Protocol):
    """What who drafts an event may ask of the room; every slot must have been named before."""

    @property
    def room_id(self) -> RoomId:
        """The room."""
        ...

    @property
    def room_version(self) -> RoomVersion:
        """Its version."""
        ...

    def find(self, slot: StateKey) -> Pdu | None:
        """The event at a slot of the current state; None if the slot is empty."""
        ...


class Compose(Protocol):
    """Decides, given a room as it is, which events to add to it; it may be asked again when the room has changed."""

    def __call__(self, state: CurrentState) -> Sequence[Draft]:
        """The events to add, each the successor of the one before; none if there is nothing to do.

        Raises:
            MatrixError: what is wanted cannot be.
        """
        ...


@dataclass(frozen=True, slots=True)
class AddedEvents:
    """What was added to a room.

    Attributes:
        position: of all the events in the stream; None if nothing was added.
        events: the events, in their order.
        ends: what nothing follows in the room now; empty if that was not looked at.
    """

    position: int | None = None
    events: Sequence[Pdu] = ()
    event_nids: Sequence[int] = field(default=())
    ends: frozenset[EventId] = frozenset()


@dataclass(frozen=True, slots=True)
class PushRecipient:
    """A member for whom an event does something else than for most.

    Attributes:
        actions: the push actions as JSON.
    """

    user_id: UserId
    actions: str
    notify: bool
    highlight: bool


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """What an event does to the members of its room.

    Attributes:
        actions_id: how it notifies every joined local member but its sender; None if it does not.
        exceptions: those for whom it does something else.
    """

    actions_id: int | None = None
    exceptions: Collection[PushRecipient] = ()


@dataclass(frozen=True, slots=True)
class PushedRoom:
    """The room of events whose push rules are evaluated, before they are added to it.

    Attributes:
        room_nid: None for a room that is just being created.
        state_version: of the state that `state` is a part of.
        state: entries of the state before the events; at least create event, power levels and the senders' memberships.
    """

    room_nid: int | None
    room_id: RoomId
    room_version: RoomVersion
    state_version: int
    state: Mapping[StateKey, Pdu]


class PushEvaluator(Protocol):
    """Says what events do to the members of a room, by their push rules."""

    async def evaluate(self, room: PushedRoom, events: Sequence[Pdu]) -> Sequence[PushOutcome]:
        """One outcome for each event. It is asked before the events are added."""
        ...
