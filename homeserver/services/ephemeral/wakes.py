"""Whom to wake for what passes in a room: those who sync it, and what tells other servers."""

from homeserver.core.ids import RoomId


def wakes_of(room_id: RoomId) -> frozenset[str]:
    """The hub's keys of a room in which somebody types or has read."""
    return frozenset((f"room:{room_id}", f"edu:{room_id}"))
