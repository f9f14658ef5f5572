"""Summaries of rooms that other servers have sent: read member by member, for they may hold anything.

https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from homeserver.core.ids import RoomId
from homeserver.services.rooms.discovery import is_room_id

_TEXT_MAX: Final = 65_536
_CONDITIONS_MAX: Final = 500
_TEXTS: Final = ("name", "topic", "avatar_url", "canonical_alias", "room_type", "room_version", "encryption")
_OPEN_JOIN_RULES: Final = frozenset(("public", "knock", "knock_restricted"))


@dataclass(frozen=True, slots=True)
class RemoteSummary:
    """What another server says of a room.

    Attributes:
        body: the room as a `RoomSummary` of the specification, with the members that are well formed.
    """

    room_id: RoomId
    body: Mapping[str, Any]

    @property
    def room_type(self) -> str | None:
        """The room's type; None if it has none."""
        room_type: str | None = self.body.get("room_type")
        return room_type

    @property
    def allowed_room_ids(self) -> Sequence[str]:
        """The rooms whose members may join, if it is restricted."""
        allowed: Sequence[str] = self.body.get("allowed_room_ids", ())
        return allowed

    @property
    def is_open(self) -> bool:
        """Whether everybody may read the room, join it, or ask for that."""
        return bool(self.body["world_readable"]) or self.body["join_rule"] in _OPEN_JOIN_RULES


def parse_summary(value: object) -> RemoteSummary | None:
    """Reads what another server says of a room; None if it does not even say which room that is.

    A member with a wrong type counts as absent; an absent join rule is `public`, as the specification has it.
    """
    if not isinstance(value, dict) or not is_room_id(value.get("room_id")):
        return None
    members = value.get("num_joined_members")
    join_rule = value.get("join_rule", "public")
    body: dict[str, Any] = {
        "room_id": value["room_id"],
        "num_joined_members": members if type(members) is int and members >= 0 else 0,
        "world_readable": value.get("world_readable") is True,
        "guest_can_join": value.get("guest_can_join") is True,
        "join_rule": join_rule if isinstance(join_rule, str) and len(join_rule) <= _TEXT_MAX else "invite",
    }
    for name in _TEXTS:
        text = value.get(name)
        if isinstance(text, str) and text and len(text) <= _TEXT_MAX:
            body[name] = text
    allowed = value.get("allowed_room_ids")
    if isinstance(allowed, list) and (room_ids := [each for each in allowed[:_CONDITIONS_MAX] if is_room_id(each)]):
        body["allowed_room_ids"] = room_ids
    return RemoteSummary(RoomId(value["room_id"]), body)
