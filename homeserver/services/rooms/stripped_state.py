"""Stripped state: the little that those who are invited to a room, or knock at it, are told of its state.

It is the state as it was when the invitation or the knock was sent. What becomes of the room afterwards is the business
of those who are in it. Of rooms that this server is not in, it is what another server has said, which may be anything
of the right form.

https://spec.matrix.org/v1.19/client-server-api/#stripped-state
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from homeserver.core.ids import UserId
from homeserver.core.pdu import StateKey
from storage.database import Connection
from storage.events import StoredEvent, list_events
from storage.invited_states import InvitedState, list_invited_states
from storage.state import StateStore

TOLD: Final[Sequence[StateKey]] = (
    ("m.room.create", ""),
    ("m.room.name", ""),
    ("m.room.avatar", ""),
    ("m.room.topic", ""),
    ("m.room.join_rules", ""),
    ("m.room.canonical_alias", ""),
    ("m.room.encryption", ""),
)
"""What the specification lists, in its order."""


class StrippedState:
    """Reads stripped state for the users that it is shown to."""

    def __init__(self, *, states: StateStore) -> None:
        self._states = states

    async def of_rooms(
        self, conn: Connection, user_id: UserId, member_event_nids: Mapping[int, int]
    ) -> Mapping[int, Sequence[dict[str, Any]]]:
        """The stripped state events of each room, with the user's own member event last.

        Args:
            user_id: who is invited or knocks.
            member_event_nids: the member event of the invitation or knock, by room_nid.

        Returns:
            The events by room_nid, for each of the rooms.
        """
        members = {event.event_nid: event for event in await list_events(conn, member_event_nids.values())}
        shown = await self._states_of(conn, user_id, list(members.values()))
        told = await list_invited_states(conn, [nid for nid in members if nid not in shown])
        events = {
            event.event_nid: event for event in await list_events(conn, {n for nids in shown.values() for n in nids})
        }
        return {
            room_nid: [
                *(_told_from_outside(told[member_nid], user_id) if member_nid in told else ()),
                *(
                    strip(event)
                    for event in (*(events.get(nid) for nid in shown.get(member_nid, ())), members.get(member_nid))
                    if event is not None
                ),
            ]
            for room_nid, member_nid in member_event_nids.items()
        }

    async def _states_of(
        self, conn: Connection, user_id: UserId, members: Sequence[StoredEvent]
    ) -> Mapping[int, Sequence[int]]:
        """What is shown of the state before each member event, as event_nids by the event_nid of the member event."""
        senders = {("m.room.member", str(member.sender)) for member in members if member.sender != user_id}
        slot_ids = await self._states.find_slots(conn, [*TOLD, *senders])
        snapshots = await self._states.load_many(
            conn, {member.state_id for member in members if member.state_id is not None}
        )
        shown = {}
        for member in members:
            if member.state_id is None:
                continue
            snapshot = snapshots[member.state_id]
            slots = [*TOLD] if member.sender == user_id else [*TOLD, ("m.room.member", str(member.sender))]
            found = (snapshot.get(slot_ids[slot]) for slot in slots if slot in slot_ids)
            shown[member.event_nid] = [event_nid for event_nid in found if event_nid is not None]
        return shown


def _told_from_outside(state: InvitedState, user_id: UserId) -> list[dict[str, Any]]:
    """What another server has said of a room; the user's own member event is known better."""
    own = ("m.room.member", user_id)
    return [event for event in orjson.loads(state.events) if (event["type"], event["state_key"]) != own]


def strip(event: StoredEvent) -> dict[str, Any]:
    """A stored state event with only its type, state key, sender and content."""
    return {
        "type": event.type,
        "state_key": event.state_key,
        "sender": event.sender,
        "content": orjson.loads(event.client_json)["content"],
    }
