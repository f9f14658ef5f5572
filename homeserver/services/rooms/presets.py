"""The first events of a room that a client asks for: presets, power levels, and the order in which they are sent.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from homeserver.core.ids import RoomAlias, UserId
from homeserver.core.pdu import StateKey
from homeserver.core.room_versions import RoomVersion
from homeserver.services.rooms.drafts import Draft
from homeserver.services.rooms.member_content import member_content

PRIVATE_CHAT: Final = "private_chat"
TRUSTED_PRIVATE_CHAT: Final = "trusted_private_chat"
PUBLIC_CHAT: Final = "public_chat"
ENCRYPTION_ALGORITHM: Final = "m.megolm.v1.aes-sha2"

_PRESETS: Final[Mapping[str, Mapping[str, Mapping[str, str]]]] = {
    PRIVATE_CHAT: {
        "m.room.join_rules": {"join_rule": "invite"},
        "m.room.history_visibility": {"history_visibility": "shared"},
        "m.room.guest_access": {"guest_access": "can_join"},
    },
    PUBLIC_CHAT: {
        "m.room.join_rules": {"join_rule": "public"},
        "m.room.history_visibility": {"history_visibility": "shared"},
        # Guests stay out, which is what a room without m.room.guest_access says too.
    },
}

_CREATOR_LEVEL: Final = 100
_ABOVE_STATE_DEFAULT: Final = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRoom:
    """A room as a client wants it; everything has been checked for its form.

    Attributes:
        creation_content: further members of the create event's content.
        initial_state: state events that come after those of the preset, and in their place.
        power_level_content_override: members that replace those of the default power levels.
        invite: users of this server, who are invited by the room's first events.
        invite_elsewhere: users of other servers, who are invited when the room is there.
        encrypted: an `m.room.encryption` event is wanted, unless `initial_state` has one.
        profiles: what stands in the member events of the creator and of those invited.
    """

    creator: UserId
    room_version: RoomVersion
    preset: str = PRIVATE_CHAT
    creation_content: Mapping[str, Any] = field(default_factory=dict)
    alias: RoomAlias | None = None
    initial_state: Sequence[tuple[StateKey, Mapping[str, Any]]] = ()
    power_level_content_override: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    topic: str | None = None
    invite: Sequence[UserId] = ()
    invite_elsewhere: Sequence[UserId] = ()
    is_direct: bool = False
    encrypted: bool = False
    profiles: Mapping[UserId, Mapping[str, str]] = field(default_factory=dict)


def first_events(room: NewRoom) -> list[Draft]:
    """The events that make up the room, in the specification's order."""
    overriding = {slot for slot, _ in room.initial_state}
    drafts = [
        _state(room, "m.room.create", create_content(room)),
        _member(room, room.creator, "join"),
        _state(room, "m.room.power_levels", {**default_power_levels(room), **room.power_level_content_override}),
    ]
    if room.alias is not None:
        drafts.append(_state(room, "m.room.canonical_alias", {"alias": room.alias}))
    for event_type, content in _PRESETS[PUBLIC_CHAT if room.preset == PUBLIC_CHAT else PRIVATE_CHAT].items():
        if (event_type, "") not in overriding:
            drafts.append(_state(room, event_type, content))
    if room.encrypted and ("m.room.encryption", "") not in overriding:
        drafts.append(_state(room, "m.room.encryption", {"algorithm": ENCRYPTION_ALGORITHM}))
    named = {"m.room.name": room.name, "m.room.topic": room.topic}
    for (event_type, state_key), content in room.initial_state:
        if state_key or named.get(event_type) is None:
            drafts.append(_state(room, event_type, content, state_key=state_key))
    if room.name is not None:
        drafts.append(_state(room, "m.room.name", {"name": room.name}))
    if room.topic is not None:
        drafts.append(_state(room, "m.room.topic", topic_content(room.topic)))
    drafts.extend(_member(room, user_id, "invite") for user_id in room.invite)
    return drafts


def create_content(room: NewRoom) -> dict[str, Any]:
    """The content of the create event."""
    content = {**room.creation_content, "room_version": room.room_version.identifier}
    content.pop("creator", None)
    if not room.room_version.implicit_room_creator:
        content["creator"] = room.creator
    if room.room_version.creators_in_control and room.preset == TRUSTED_PRIVATE_CHAT:
        additional = [*content.get("additional_creators", ()), *room.invite, *room.invite_elsewhere]
        # Without repetitions, in their order; the creator needs not be named.
        additional = [user_id for user_id in dict.fromkeys(additional) if user_id != room.creator]
        if additional:
            content["additional_creators"] = additional
    return content


def default_power_levels(room: NewRoom) -> dict[str, Any]:
    """The power levels that a room starts with if nothing else is said."""
    users: dict[str, int] = {}
    if not room.room_version.creators_in_control:
        users[room.creator] = _CREATOR_LEVEL
        if room.preset == TRUSTED_PRIVATE_CHAT:
            users.update(dict.fromkeys((*room.invite, *room.invite_elsewhere), _CREATOR_LEVEL))
    return {
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.canonical_alias": 50,
            "m.room.avatar": 50,
            # With creators above all levels, only they end the room.
            "m.room.tombstone": _ABOVE_STATE_DEFAULT if room.room_version.creators_in_control else 100,
            "m.room.server_acl": 100,
            "m.room.encryption": 100,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": 50 if room.preset == PUBLIC_CHAT else 0,
    }


def topic_content(topic: str) -> dict[str, Any]:
    """The content of a topic that is plain text."""
    return {"topic": topic, "m.topic": {"m.text": [{"body": topic}]}}


def _state(room: NewRoom, event_type: str, content: Mapping[str, Any], *, state_key: str = "") -> Draft:
    return Draft(type=event_type, sender=room.creator, state_key=state_key, content=content)


def _member(room: NewRoom, user_id: UserId, membership: str) -> Draft:
    content = member_content(
        membership, profile=room.profiles.get(user_id), is_direct=room.is_direct and membership == "invite"
    )
    return Draft(type="m.room.member", sender=room.creator, state_key=user_id, content=content)
