"""The persistent data unit: a room event as servers exchange it. Immutable; what we know about it stands elsewhere.

https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from homeserver.core.errors import InvalidParam
from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.core.room_versions import RoomVersion

StateKey: TypeAlias = tuple[str, str]
"""An event type and a state key: where an event stands in a room's state."""

StateMap: TypeAlias = Mapping[StateKey, EventId]
"""The state of a room: which event stands where."""


@dataclass(frozen=True, slots=True)
class Pdu:
    """A room event in the form of its room version.

    Attributes:
        event_id: from the event itself in versions 1 and 2, else computed from its reference hash.
        room_version: the traits of the room's version.
        json: the whole event as federated (with `hashes`, `signatures` and perhaps `unsigned`); never changed.
        state_key: None for an event that is no state.
        redacts: the event that an `m.room.redaction` wants redacted, wherever the room version puts it.
    """

    event_id: EventId
    room_version: RoomVersion
    room_id: RoomId
    type: str
    sender: UserId
    state_key: str | None
    origin_server_ts: int
    depth: int
    content: Mapping[str, Any] = field(hash=False)
    prev_events: tuple[EventId, ...]
    auth_events: tuple[EventId, ...]
    redacts: EventId | None
    json: Mapping[str, Any] = field(hash=False, repr=False)

    @property
    def is_state(self) -> bool:
        """Whether the event is a state event."""
        return self.state_key is not None

    @property
    def state_slot(self) -> StateKey | None:
        """Where the event stands in the state, if it is a state event."""
        return None if self.state_key is None else (self.type, self.state_key)

    @property
    def membership(self) -> str | None:
        """The membership that an `m.room.member` event sets; None for other events and wrong values."""
        value = self.content.get("membership") if self.type == "m.room.member" else None
        return value if isinstance(value, str) else None

    @classmethod
    def trusted(cls, json: Mapping[str, Any], event_id: EventId, room_version: RoomVersion, room_id: RoomId) -> "Pdu":
        """Wraps an event that was checked before, without checking it again (for example one of our own database).

        `room_id` is handed in, for the create event of version 12 does not name it.
        """
        return cls(
            event_id=event_id,
            room_version=room_version,
            room_id=room_id,
            type=json["type"],
            sender=UserId(json["sender"]),
            state_key=json.get("state_key"),
            origin_server_ts=json["origin_server_ts"],
            depth=json["depth"],
            content=json["content"],
            prev_events=_event_ids(json["prev_events"]),
            auth_events=_event_ids(json["auth_events"]),
            redacts=redacts_of(json, room_version),
            json=json,
        )


def redacts_of(json: Mapping[str, Any], room_version: RoomVersion) -> EventId | None:
    """The event that an `m.room.redaction` wants redacted; None for other events and for what is no event id."""
    if json["type"] != "m.room.redaction":
        return None
    try:
        return EventId.parse((json["content"] if room_version.redacts_in_content else json).get("redacts"))
    except InvalidParam:
        return None


def _event_ids(references: list[Any]) -> tuple[EventId, ...]:
    """The ids in a list of references, which versions 1 and 2 write as pairs of id and hashes."""
    return tuple(EventId(reference if isinstance(reference, str) else reference[0]) for reference in references)
