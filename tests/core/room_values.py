"""Events and states as plain values, for tests of the rules: no hashes, no signatures, ids that a reader can follow."""

from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.room_versions import ROOM_VERSIONS, EventIdFormat, RoomVersion

VERSIONS = tuple(ROOM_VERSIONS.values())

CREATOR = UserId("@creator:one.example")
ADMIN = UserId("@admin:one.example")
MODERATOR = UserId("@moderator:two.example")
USER = UserId("@user:two.example")
STRANGER = UserId("@stranger:three.example")


def versions(first: int, last: int = len(VERSIONS)) -> tuple[RoomVersion, ...]:
    """The room versions from one to another."""
    return VERSIONS[first - 1 : last]


def event_id(name: str, version: RoomVersion) -> EventId:
    """An event id in the form of a room version that shows its name."""
    if version.event_id_format is EventIdFormat.SERVER_ASSIGNED:
        return EventId(f"${name}:one.example")
    return EventId(f"${name}")


def room_id(version: RoomVersion, name: str = "create") -> RoomId:
    """The id of the room whose create event has this name."""
    return RoomId(f"!{name}" if version.room_id_is_create_hash else f"!{name}:one.example")


def event(
    version: RoomVersion,
    event_type: str,
    *,
    sender: str,
    name: str = "event",
    state_key: str | None = None,
    content: Mapping[str, Any] | None = None,
    prev_events: Sequence[EventId] | None = None,
    auth_events: Sequence[EventId] = (),
    room: RoomId | None = None,
    origin_server_ts: int = 0,
    depth: int = 10,
    redacts: EventId | None = None,
) -> Pdu:
    """An event of a room version."""
    room = room_id(version) if room is None else room
    in_room = {} if version.room_id_is_create_hash and event_type == "m.room.create" else {"room_id": room}
    return Pdu(
        event_id=event_id(name, version),
        room_version=version,
        room_id=room,
        type=event_type,
        sender=UserId(sender),
        state_key=state_key,
        origin_server_ts=origin_server_ts,
        depth=depth,
        content=content or {},
        prev_events=(event_id("before", version),) if prev_events is None else tuple(prev_events),
        auth_events=tuple(auth_events),
        redacts=redacts,
        json=in_room,
    )


def create(version: RoomVersion, **content: Any) -> Pdu:
    """The create event of a room."""
    named = {} if version.implicit_room_creator else {"creator": CREATOR}
    return event(
        version,
        "m.room.create",
        sender=CREATOR,
        name="create",
        state_key="",
        content={"room_version": version.identifier, **named, **content},
        prev_events=(),
    )


def member(version: RoomVersion, user_id: str, membership: str, *, sender: str | None = None, **content: Any) -> Pdu:
    """A membership that stands in the state."""
    return event(
        version,
        "m.room.member",
        sender=sender or user_id,
        name=f"member-{user_id[1:].partition(':')[0]}-{membership}",
        state_key=user_id,
        content={"membership": membership, **content},
    )


def join_rules(version: RoomVersion, join_rule: Any) -> Pdu:
    """Join rules that stand in the state."""
    return event(
        version, "m.room.join_rules", sender=ADMIN, name="join-rules", state_key="", content={"join_rule": join_rule}
    )


def power_levels(version: RoomVersion, **content: Any) -> Pdu:
    """Power levels that stand in the state."""
    return event(version, "m.room.power_levels", sender=ADMIN, name="power-levels", state_key="", content=content)


def usual_levels(version: RoomVersion) -> dict[str, int]:
    """The levels of the users of `usual_state`; creators have no entry where they stand above the rest."""
    levels: dict[str, int] = {ADMIN: 100, MODERATOR: 50}
    return levels if version.creators_in_control else levels | {CREATOR: 100}


def state_of(*events: Pdu) -> dict[StateKey, Pdu]:
    """A state made of events, later ones over earlier ones."""
    return {event.state_slot: event for event in events if event.state_slot is not None}


def usual_state(version: RoomVersion, *changes: Pdu) -> dict[StateKey, Pdu]:
    """A public room with a creator, an admin (100), a moderator (50) and a user (0), and with some changes."""
    return state_of(
        create(version),
        *(member(version, user_id, "join") for user_id in (CREATOR, ADMIN, MODERATOR, USER)),
        power_levels(version, users=usual_levels(version)),
        join_rules(version, "public"),
        *changes,
    )
