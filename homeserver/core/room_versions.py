"""Room versions as data: what each of them does differently, and nothing about how.

Each version is a frozen value derived from the one before. Code asks for a trait (`room_version.creators_in_control`),
never for a number.

https://spec.matrix.org/v1.19/rooms/
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Final

from homeserver.core.errors import UnsupportedRoomVersion


class EventIdFormat(Enum):
    """How an event gets its id."""

    SERVER_ASSIGNED = 1
    """`$opaque:domain`, part of the event (versions 1 and 2)."""
    HASH_BASE64 = 2
    """The reference hash in standard base64 (version 3)."""
    HASH_URL_SAFE = 3
    """The reference hash in URL-safe base64 (version 4 and later)."""


class StateResolution(Enum):
    """Which algorithm merges forked state."""

    V1 = "1"
    V2 = "2"
    V2_1 = "2.1"


@dataclass(frozen=True, slots=True)
class RoomVersion:
    """The traits of one room version; each is named for what the later versions do."""

    identifier: str
    event_id_format: EventIdFormat
    state_resolution: StateResolution
    key_validity_enforced: bool
    """Signing keys must be valid at the event's `origin_server_ts` (5 and later)."""
    strict_canonical_json: bool
    """Floats and integers beyond ±(2^53 - 1) are refused (6 and later)."""
    aliases_events_special: bool
    """`m.room.aliases` has an authorisation and a redaction rule of its own (1 to 5)."""
    notifications_levels_checked: bool
    """Changes to `notifications` in power levels are authorised (6 and later)."""
    knock_allowed: bool
    """`knock` is a membership and a join rule (7 and later)."""
    restricted_join_allowed: bool
    """The join rule `restricted` exists (8 and later)."""
    restricted_join_redaction_kept: bool
    """Redaction keeps `join_authorised_via_users_server` of a member event (9 and later)."""
    knock_restricted_allowed: bool
    """The join rule `knock_restricted` exists (10 and later)."""
    integer_power_levels: bool
    """Power levels must be integers, not strings (10 and later)."""
    implicit_room_creator: bool
    """The creator is the sender of the create event; `content.creator` is not used (11 and later)."""
    updated_redaction_rules: bool
    """The redaction algorithm of version 11 and later."""
    redacts_in_content: bool
    """`redacts` stands in the content of `m.room.redaction` (11 and later)."""
    redaction_checked_on_arrival: bool
    """`m.room.redaction` is authorised like any event, its effect is judged later (3 and later)."""
    room_id_is_create_hash: bool
    """The room id is the hash of the create event, which is then left out of `auth_events` (12 and later)."""
    creators_in_control: bool
    """Creators, also `additional_creators`, stand above all power levels (12 and later)."""


_V1: Final = RoomVersion(
    identifier="1",
    event_id_format=EventIdFormat.SERVER_ASSIGNED,
    state_resolution=StateResolution.V1,
    key_validity_enforced=False,
    strict_canonical_json=False,
    aliases_events_special=True,
    notifications_levels_checked=False,
    knock_allowed=False,
    restricted_join_allowed=False,
    restricted_join_redaction_kept=False,
    knock_restricted_allowed=False,
    integer_power_levels=False,
    implicit_room_creator=False,
    updated_redaction_rules=False,
    redacts_in_content=False,
    redaction_checked_on_arrival=False,
    room_id_is_create_hash=False,
    creators_in_control=False,
)
_V2: Final = replace(_V1, identifier="2", state_resolution=StateResolution.V2)
_V3: Final = replace(_V2, identifier="3", event_id_format=EventIdFormat.HASH_BASE64, redaction_checked_on_arrival=True)
_V4: Final = replace(_V3, identifier="4", event_id_format=EventIdFormat.HASH_URL_SAFE)
_V5: Final = replace(_V4, identifier="5", key_validity_enforced=True)
_V6: Final = replace(
    _V5,
    identifier="6",
    strict_canonical_json=True,
    aliases_events_special=False,
    notifications_levels_checked=True,
)
_V7: Final = replace(_V6, identifier="7", knock_allowed=True)
_V8: Final = replace(_V7, identifier="8", restricted_join_allowed=True)
_V9: Final = replace(_V8, identifier="9", restricted_join_redaction_kept=True)
_V10: Final = replace(_V9, identifier="10", knock_restricted_allowed=True, integer_power_levels=True)
_V11: Final = replace(
    _V10, identifier="11", implicit_room_creator=True, updated_redaction_rules=True, redacts_in_content=True
)
_V12: Final = replace(
    _V11,
    identifier="12",
    state_resolution=StateResolution.V2_1,
    room_id_is_create_hash=True,
    creators_in_control=True,
)

ROOM_VERSIONS: Final[Mapping[str, RoomVersion]] = MappingProxyType(
    {v.identifier: v for v in (_V1, _V2, _V3, _V4, _V5, _V6, _V7, _V8, _V9, _V10, _V11, _V12)}
)
DEFAULT_ROOM_VERSION: Final = _V12


def room_version_named(identifier: object) -> RoomVersion:
    """Finds a room version by its identifier.

    Raises:
        UnsupportedRoomVersion: this server does not know it.
    """
    version = ROOM_VERSIONS.get(identifier) if isinstance(identifier, str) else None
    if version is None:
        raise UnsupportedRoomVersion("This server does not support that room version")
    return version
