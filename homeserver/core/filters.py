"""Filters: reading the definitions that clients upload, and judging events by them.

A filter is a frozen value. What a database can judge stands in attributes (`None` means that there is no such
restriction, an empty tuple that nothing passes); `matches()` judges all of it, for events that are at hand.

https://spec.matrix.org/v1.19/client-server-api/#filtering
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from homeserver.core.errors import BadJson
from homeserver.core.event_fields import EventFields
from homeserver.core.glob import GlobSet
from homeserver.core.text import is_storable

LIST_LENGTH_MAX: Final = 1000
"""How many entries each list of a filter may have."""
TEXT_LENGTH_MAX: Final = 1024
"""How many characters each entry may have; no identifier and no event type is longer than 255 bytes."""
LIMIT_MAX: Final = 2**53 - 1

_LIKE_ESCAPES: Final = str.maketrans({"\\": r"\\", "%": r"\%", "_": r"\_", "*": "%"})


class EventFormat(StrEnum):
    """The form in which events are served."""

    CLIENT = "client"
    FEDERATION = "federation"


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are wanted, of any kind (`EventFilter` of the specification).

    Attributes:
        limit: how many events at most; servers apply a default and a maximum, see `limit_within()`.
        types: the wanted event types, in which `*` stands for any characters.
        not_types: the unwanted event types, stronger than `types`.
        senders: the wanted senders.
        not_senders: the unwanted senders, stronger than `senders`.
    """

    limit: int | None = None
    types: tuple[str, ...] | None = None
    not_types: tuple[str, ...] = ()
    senders: tuple[str, ...] | None = None
    not_senders: tuple[str, ...] = ()
    _types: GlobSet | None = field(init=False, repr=False, compare=False)
    _not_types: GlobSet = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        types = None if self.types is None else GlobSet.compile(self.types, question_mark=False)
        object.__setattr__(self, "_types", types)
        object.__setattr__(self, "_not_types", GlobSet.compile(self.not_types, question_mark=False))

    @classmethod
    def parse(cls, json: object) -> "EventFilter":
        """Reads an `EventFilter`.

        Raises:
            BadJson: a member has a wrong type or value, or too many entries.
        """
        return cls(**_event_members(_object(json, "An event filter")))

    def matches(self, *, event_type: str, sender: str | None) -> bool:
        """Whether an event is wanted; `sender` is None for what has none, such as account data."""
        if not self.matches_type(event_type):
            return False
        return sender not in self.not_senders and (self.senders is None or sender in self.senders)

    def matches_type(self, event_type: str) -> bool:
        """Whether events of the type are wanted at all."""
        return not self._not_types.matches(event_type) and (self._types is None or self._types.matches(event_type))

    def limit_within(self, *, default: int, maximum: int) -> int:
        """The limit to work with."""
        return min(default if self.limit is None else self.limit, maximum)

    @property
    def types_like(self) -> tuple[str, ...] | None:
        r"""`types` as patterns of SQL's `LIKE ANY`, with `\` as its escape."""
        return None if self.types is None else tuple(each.translate(_LIKE_ESCAPES) for each in self.types)

    @property
    def not_types_like(self) -> tuple[str, ...]:
        r"""`not_types` as patterns of SQL's `LIKE ANY`, with `\` as its escape."""
        return tuple(each.translate(_LIKE_ESCAPES) for each in self.not_types)


@dataclass(frozen=True, slots=True)
class RoomEventFilter(EventFilter):
    """Which events of rooms are wanted (`RoomEventFilter` of the specification, for state too).

    Attributes:
        rooms: the wanted rooms.
        not_rooms: the unwanted rooms, stronger than `rooms`.
        contains_url: whether the content has a `url`; None if that does not matter.
        lazy_load_members: of the member events, only those of the senders in the response are wanted.
        include_redundant_members: also those that were sent to the client before.
        unread_thread_notifications: notification counts are wanted for each thread.
        related_by_senders: only events to which an event of one of these senders relates. It and the next are not in
            the specification any more, but clients and tests of others use them; only a database can judge them.
        related_by_rel_types: only events to which an event relates in one of these ways.
    """

    rooms: tuple[str, ...] | None = None
    not_rooms: tuple[str, ...] = ()
    contains_url: bool | None = None
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    unread_thread_notifications: bool = False
    related_by_senders: tuple[str, ...] | None = None
    related_by_rel_types: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, json: object) -> "RoomEventFilter":
        """Reads a `RoomEventFilter`.

        Raises:
            BadJson: a member has a wrong type or value, or too many entries.
        """
        members = _object(json, "A room event filter")
        return cls(
            **_event_members(members),
            **_room_members(members),
            contains_url=_boolean(members, "contains_url"),
            lazy_load_members=_boolean(members, "lazy_load_members") or False,
            include_redundant_members=_boolean(members, "include_redundant_members") or False,
            unread_thread_notifications=_boolean(members, "unread_thread_notifications") or False,
            related_by_senders=_texts(members, "related_by_senders", sigil="@"),
            related_by_rel_types=_texts(members, "related_by_rel_types"),
        )

    def allows_room(self, room_id: str) -> bool:
        """Whether events of the room are wanted at all."""
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)

    def matches_in_room(self, *, event_type: str, sender: str | None, room_id: str, content: Mapping[str, Any]) -> bool:
        """Whether an event of a room is wanted, as far as the event itself can tell (not `related_by_...`)."""
        if self.contains_url is not None and self.contains_url != ("url" in content):
            return False
        return self.allows_room(room_id) and self.matches(event_type=event_type, sender=sender)


@dataclass(frozen=True, slots=True)
class RoomFilter:
    """What is wanted of rooms (`RoomFilter` of the specification).

    Attributes:
        rooms: the wanted rooms.
        not_rooms: the unwanted rooms, stronger than `rooms`.
        include_leave: rooms that the user has left are wanted.
        ephemeral: the wanted ephemeral events.
        state: the wanted state events.
        timeline: the wanted events of the timeline.
        account_data: the wanted account data of rooms.
    """

    rooms: tuple[str, ...] | None = None
    not_rooms: tuple[str, ...] = ()
    include_leave: bool = False
    ephemeral: RoomEventFilter = RoomEventFilter()
    state: RoomEventFilter = RoomEventFilter()
    timeline: RoomEventFilter = RoomEventFilter()
    account_data: RoomEventFilter = RoomEventFilter()

    @classmethod
    def parse(cls, json: object) -> "RoomFilter":
        """Reads a `RoomFilter`.

        Raises:
            BadJson: a member has a wrong type or value, or too many entries.
        """
        members = _object(json, "A room filter")
        return cls(
            **_room_members(members),
            include_leave=_boolean(members, "include_leave") or False,
            ephemeral=RoomEventFilter.parse(members.get("ephemeral", {})),
            state=RoomEventFilter.parse(members.get("state", {})),
            timeline=RoomEventFilter.parse(members.get("timeline", {})),
            account_data=RoomEventFilter.parse(members.get("account_data", {})),
        )

    def allows_room(self, room_id: str) -> bool:
        """Whether anything of the room is wanted."""
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)


@dataclass(frozen=True, slots=True)
class Filter:
    """A whole filter, as uploaded or given with a request (`Filter` of the specification).

    Attributes:
        event_fields: the wanted properties of events; None wants all of them.
        event_format: the form of the events.
        presence: the wanted presence updates.
        account_data: the wanted global account data.
        room: what is wanted of rooms.
    """

    event_fields: EventFields | None = None
    event_format: EventFormat = EventFormat.CLIENT
    presence: EventFilter = EventFilter()
    account_data: EventFilter = EventFilter()
    room: RoomFilter = RoomFilter()

    @classmethod
    def parse(cls, json: object) -> "Filter":
        """Reads a filter; members that are not known are passed over.

        Raises:
            BadJson: a member has a wrong type or value, or too many entries.
        """
        members = _object(json, "A filter")
        event_fields = _texts(members, "event_fields")
        event_format = members.get("event_format", EventFormat.CLIENT)
        if not isinstance(event_format, str) or event_format not in _EVENT_FORMATS:
            raise BadJson("event_format must be client or federation")
        return cls(
            event_fields=None if event_fields is None else EventFields.compile(event_fields),
            event_format=EventFormat(event_format),
            presence=EventFilter.parse(members.get("presence", {})),
            account_data=EventFilter.parse(members.get("account_data", {})),
            room=RoomFilter.parse(members.get("room", {})),
        )


_EVENT_FORMATS: Final = frozenset(EventFormat)


def _object(json: object, name: str) -> Mapping[str, Any]:
    if not isinstance(json, Mapping):
        raise BadJson(f"{name} must be an object")
    return json


def _event_members(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members that all event filters have."""
    return {
        "limit": _limit(members),
        "types": _texts(members, "types"),
        "not_types": _texts(members, "not_types") or (),
        "senders": _texts(members, "senders", sigil="@"),
        "not_senders": _texts(members, "not_senders", sigil="@") or (),
    }


def _room_members(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members that choose rooms."""
    return {
        "rooms": _texts(members, "rooms", sigil="!"),
        "not_rooms": _texts(members, "not_rooms", sigil="!") or (),
    }


def _limit(members: Mapping[str, Any]) -> int | None:
    if "limit" not in members:
        return None
    limit = members["limit"]
    # The specification wants more than 0, but clients say 0 to get no events.
    if type(limit) is not int or not 0 <= limit <= LIMIT_MAX:
        raise BadJson("limit must be a positive integer")
    return limit


def _boolean(members: Mapping[str, Any], name: str) -> bool | None:
    value = members.get(name)
    if value is None and name not in members:
        return None
    if not isinstance(value, bool):
        raise BadJson(f"{name} must be a boolean")
    return value


def _texts(members: Mapping[str, Any], name: str, *, sigil: str = "") -> tuple[str, ...] | None:
    """A list of texts; `sigil` is what each of them starts with. None if it is absent."""
    if name not in members:
        return None
    values = members[name]
    if not isinstance(values, list):
        raise BadJson(f"{name} must be a list")
    if len(values) > LIST_LENGTH_MAX:
        raise BadJson(f"{name} has more than {LIST_LENGTH_MAX} entries")
    for value in values:
        if not isinstance(value, str) or not value.startswith(sigil):
            raise BadJson(f"{name} must be a list of strings" + (f" that start with {sigil}" if sigil else ""))
        if len(value) > TEXT_LENGTH_MAX:
            raise BadJson(f"{name} has an entry of more than {TEXT_LENGTH_MAX} characters")
        if not is_storable(value):
            raise BadJson(f"{name} has an entry with characters that are not allowed")
    return tuple(values)
