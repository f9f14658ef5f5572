"""The children of spaces, as `m.space.child` events name them, of this server's rooms and of those that others tell of.

https://spec.matrix.org/v1.19/client-server-api/#mspacechild
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from homeserver.core.errors import InvalidParam
from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.core.spaces import child_order, is_suggested, is_valid_child
from homeserver.services.rooms.discovery import is_room_id
from storage.discovery import ChildRow

CHILDREN_MAX: Final = 1000
"""How many children of one space another server is believed."""
_VIA_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class SpaceChild:
    """A child of a space.

    Attributes:
        order: its sort key among its siblings.
        stripped: the event, as hierarchies show it.
    """

    room_id: RoomId
    order: tuple[bool, str, int, str]
    stripped: Mapping[str, Any]

    @property
    def is_suggested(self) -> bool:
        """Whether the space suggests it to its members."""
        return is_suggested(self.stripped["content"])

    @property
    def via(self) -> Sequence[ServerName]:
        """Servers that are said to be in the room."""
        return server_names(self.stripped["content"]["via"])


def server_names(values: Iterable[object]) -> Sequence[ServerName]:
    """Those of some values that are server names, each once, a few of them."""
    found: dict[ServerName, None] = {}
    for value in values:
        if len(found) >= _VIA_MAX:
            break
        try:
            found[ServerName.parse(value)] = None
        except InvalidParam:
            continue
    return list(found)


def children_of_rows(rows: Sequence[ChildRow], *, suggested_only: bool) -> Mapping[int, Sequence[SpaceChild]]:
    """The valid children by the `room_nid` of their space, in their order."""
    children: dict[int, list[SpaceChild]] = {}
    for row in rows:
        event = orjson.loads(row.client_json)
        child = _child({**event, "origin_server_ts": row.origin_server_ts})
        if child is not None and (child.is_suggested or not suggested_only):
            children.setdefault(row.room_nid, []).append(child)
    for siblings in children.values():
        siblings.sort(key=lambda child: child.order)
    return children


def children_elsewhere(events: object, *, suggested_only: bool) -> Sequence[SpaceChild]:
    """The valid children in the `children_state` of another server, which may be anything, in their order."""
    children: dict[RoomId, SpaceChild] = {}
    for event in events[:CHILDREN_MAX] if isinstance(events, list) else ():
        child = _child(event) if _is_child_event(event) else None
        if child is not None and (child.is_suggested or not suggested_only):
            children[child.room_id] = child
    return sorted(children.values(), key=lambda child: child.order)


def _is_child_event(event: object) -> bool:
    """Whether something has the form of a stripped `m.space.child` event."""
    if not isinstance(event, dict) or event.get("type") != "m.space.child":
        return False
    try:
        UserId.parse(event.get("sender"))
    except InvalidParam:
        return False
    return (
        isinstance(event.get("state_key"), str)
        and isinstance(event.get("content"), dict)
        and type(event.get("origin_server_ts")) is int
    )


def _child(event: Mapping[str, Any]) -> SpaceChild | None:
    """The child that an event names; None if it does not make a room a child."""
    room_id, content, ts = event["state_key"], event["content"], event["origin_server_ts"]
    if not is_valid_child(content) or not is_room_id(room_id):
        return None
    return SpaceChild(
        room_id=RoomId(room_id),
        order=child_order(content, origin_server_ts=ts, room_id=room_id),
        stripped={
            "type": event["type"],
            "state_key": room_id,
            "sender": event["sender"],
            "content": content,
            "origin_server_ts": ts,
        },
    )
