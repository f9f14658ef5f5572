"""The room that replaces another: which of its state is carried over, and how its power levels have to change for that.

https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from homeserver.core.canonical_json import INTEGER_MAX
from homeserver.core.errors import InvalidParam
from homeserver.core.event_auth.power_levels import LEVEL_DEFAULTS, PowerLevels
from homeserver.core.ids import EventId, UserId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.room_versions import RoomVersion
from homeserver.services.rooms.drafts import Draft
from homeserver.services.rooms.member_content import member_content

COPIED: Final[Sequence[StateKey]] = (
    ("m.room.join_rules", ""),
    ("m.room.history_visibility", ""),
    ("m.room.guest_access", ""),
    ("m.room.encryption", ""),
    ("m.room.server_acl", ""),
    ("m.room.name", ""),
    ("m.room.topic", ""),
    ("m.room.avatar", ""),
    ("m.room.canonical_alias", ""),
)
"""What is carried over as it is, in the order in which it is sent; power levels come before, if need be also after."""

_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "m.room.join_rules": {"join_rule": "invite"},
    "m.room.history_visibility": {"history_visibility": "shared"},
    "m.room.guest_access": {"guest_access": "forbidden"},
}
"""What the old room's silence means is said in the new one."""

SPACE: Final = "m.space"
SPACE_CHILD: Final = "m.space.child"
_POWER_LEVELS: Final = "m.room.power_levels"
_TOMBSTONE: Final = "m.room.tombstone"
_CREATOR_LEVEL: Final = 100
_TOMBSTONE_LEVEL: Final = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class OldRoom:
    """What the replacement is made of.

    Attributes:
        create: the create event of the old room.
        levels: its power levels, as they are in force.
        levels_content: the content of its power levels event; None if there is none.
        state: its other state that is carried over, in order.
        bans: who is banned, with the content of their member events.
    """

    create: Pdu
    levels: PowerLevels
    levels_content: Mapping[str, Any] | None
    state: Sequence[tuple[StateKey, Mapping[str, Any]]]
    bans: Sequence[tuple[str, Mapping[str, Any]]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A room that shall replace another.

    Attributes:
        creator: who makes it.
        profile: what stands in the creator's member event.
        last_event_id: of the old room; None if it is not told.
    """

    creator: UserId
    room_version: RoomVersion
    additional_creators: Sequence[UserId] = ()
    profile: Mapping[str, str] = field(default_factory=dict)
    last_event_id: EventId | None = None


def replacement_events(old: OldRoom, new: Replacement) -> list[Draft]:
    """The events of the new room."""
    final = replacement_power_levels(old, new)
    state = _spoken_out(old.state)
    drafts = [
        _state(new, "m.room.create", _create_content(old, new)),
        Draft(
            type="m.room.member",
            sender=new.creator,
            state_key=new.creator,
            content=member_content("join", profile=new.profile),
        ),
    ]
    sent = [slot for slot, _ in state]
    first = final if new.room_version.creators_in_control else _with_enough_power(final, new.creator, sent)
    drafts.append(_state(new, _POWER_LEVELS, first))
    for (event_type, state_key), content in state:
        drafts.append(_state(new, event_type, content, state_key=state_key))
    drafts.extend(_bans(old, new, first))
    if final != first:
        drafts.append(_state(new, _POWER_LEVELS, final))
    return drafts


def _spoken_out(state: Sequence[tuple[StateKey, Mapping[str, Any]]]) -> list[tuple[StateKey, Mapping[str, Any]]]:
    """The state that is carried over, with the defaults of what is missing."""
    there = {event_type for (event_type, _), _ in state}
    missing = [((name, ""), content) for name, content in _DEFAULTS.items() if name not in there]
    return [*missing, *state]


def _create_content(old: OldRoom, new: Replacement) -> dict[str, Any]:
    predecessor: dict[str, Any] = {"room_id": old.create.room_id}
    if new.last_event_id is not None:
        predecessor["event_id"] = new.last_event_id
    content: dict[str, Any] = {"room_version": new.room_version.identifier, "predecessor": predecessor}
    for name in ("type", "m.federate"):
        if name in old.create.content:
            content[name] = old.create.content[name]
    if not new.room_version.implicit_room_creator:
        content["creator"] = new.creator
    if new.room_version.creators_in_control and new.additional_creators:
        content["additional_creators"] = list(new.additional_creators)
    return content


def replacement_power_levels(old: OldRoom, new: Replacement) -> dict[str, Any]:
    """The power levels of the new room: those of the old one, in the form that the new version demands.

    Who stands above all levels in only one of the two rooms is named, or not named any more.
    """
    levels = old.levels
    users = {user_id: level for user_id, level in levels.users.items() if _is_user_id(user_id)}
    events = dict(levels.events)
    if new.room_version.creators_in_control:
        for user_id in (new.creator, *new.additional_creators):
            users.pop(user_id, None)
        state_default = levels.named_level("state_default")
        if events.get(_TOMBSTONE, state_default) <= state_default:
            # Only creators end the room, until somebody who may change the levels allows it to others.
            events[_TOMBSTONE] = min(max(_TOMBSTONE_LEVEL, state_default + 1), INTEGER_MAX)
    else:
        highest = max((_CREATOR_LEVEL, *users.values(), *events.values(), *levels.named.values()))
        users.update(dict.fromkeys(levels.creators, highest))
    content = {**(old.levels_content or {}), **levels.named, "users": users}
    maps = {"events": events, "notifications": dict(levels.notifications)}
    # What is absent stays absent, for the content to be the same wherever it can be.
    return content | {name: entries for name, entries in maps.items() if entries or name in content}


def _is_user_id(value: str) -> bool:
    try:
        UserId.parse(value)
    except InvalidParam:
        return False
    return True


def _with_enough_power(content: Mapping[str, Any], creator: UserId, sent: Iterable[StateKey]) -> dict[str, Any]:
    """The levels with which the creator can make the room; it takes back what it has too much at the end."""
    levels = {name: content.get(name, default) for name, default in LEVEL_DEFAULTS.items()}
    events = content.get("events", {})
    needed = [events.get(event_type, levels["state_default"]) for event_type, _ in sent]
    needed += [events.get(_POWER_LEVELS, levels["state_default"]), levels["ban"], *events.values()]
    users: Mapping[str, int] = content["users"]
    own, highest = users.get(creator, levels["users_default"]), max(needed)
    if own >= highest:
        return dict(content)
    return {**content, "users": {**users, creator: highest}}


def _bans(old: OldRoom, new: Replacement, levels: Mapping[str, Any]) -> Iterable[Draft]:
    """The bans, but for those of users who have too much power for that in the new room."""
    users: Mapping[str, int] = levels["users"]
    default = levels.get("users_default", 0)
    creators = {new.creator, *new.additional_creators}
    own = None if new.room_version.creators_in_control else users.get(new.creator, default)
    for user_id, content in old.bans:
        outranked = user_id not in creators and (own is None or users.get(user_id, default) < own)
        if outranked and _is_user_id(user_id):
            yield Draft(type="m.room.member", sender=new.creator, state_key=user_id, content=content)


def _state(new: Replacement, event_type: str, content: Mapping[str, Any], *, state_key: str = "") -> Draft:
    return Draft(type=event_type, sender=new.creator, state_key=state_key, content=content)
