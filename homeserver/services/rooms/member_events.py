"""Member events about users of other servers, made on the room as it is but not (or not yet) added to it.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from homeserver.core.errors import NotFound
from homeserver.core.event_auth.auth_events import CREATE, JOIN_RULES, POWER_LEVELS, auth_event_slots
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.event_builder import EventBuilder
from homeserver.core.event_format import PREV_EVENTS_MAX
from homeserver.core.hashing import reference_hash
from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.room_versions import EventIdFormat
from homeserver.core.unpadded_base64 import encode_base64
from storage.append import Extremity
from storage.database import Connection
from storage.events import list_pdus
from storage.room_heads import RoomHead, find_head

_UNNAMED: Final = EventId("$unnamed")
"""Stands for the id that the event does not have yet."""


async def read_member_head(conn: Connection, room_id: RoomId, slots: Collection[StateKey]) -> RoomHead:
    """A room with the entries of its state that decide about memberships, and some more.

    Raises:
        NotFound: this server does not know the room.
    """
    head = await find_head(conn, room_id, list({CREATE, POWER_LEVELS, JOIN_RULES, *slots}))
    if head is None:
        raise NotFound("Unknown room")
    return head


async def begin_member_event(
    conn: Connection,
    head: RoomHead,
    room_id: RoomId,
    *,
    sender: UserId,
    target: UserId,
    content: Mapping[str, Any],
    now_ms: int,
) -> EventBuilder:
    """A member event that follows all that is in the room, and that its rules allow there.

    Args:
        conn: to read with.
        head: the room, with the entries that the event cites (see `read_member_head`).
        room_id: its id.
        sender: whose event it is.
        target: whose membership it is about.
        content: its content.
        now_ms: its time, in milliseconds.

    Raises:
        Forbidden: the authorization rules do not allow it.
    """
    version = head.room_version
    slots = auth_event_slots(
        event_type="m.room.member", sender=sender, state_key=target, content=content, room_version=version
    )
    cited = [pdu for slot in sorted(slots) if (pdu := head.find(slot)) is not None]
    ends = sorted(head.extremities, key=lambda end: -end.event_nid)[:PREV_EVENTS_MAX]
    builder = EventBuilder(
        room_version=version,
        room_id=room_id,
        type="m.room.member",
        sender=sender,
        state_key=target,
        content=content,
        origin_server_ts=now_ms,
        depth=max((end.depth for end in ends), default=0) + 1,
        prev_events=[end.event_id for end in ends],
        auth_events=[pdu.event_id for pdu in cited],
        reference_hashes=await _reference_hashes(conn, head, ends, cited),
    )
    state = {slot: pdu for slot in head.entries if (pdu := head.find(slot)) is not None}
    check_auth(Pdu.trusted(builder.template(), _UNNAMED, version, room_id), state)
    return builder


async def _reference_hashes(
    conn: Connection, head: RoomHead, ends: Collection[Extremity], cited: Collection[Pdu]
) -> Mapping[EventId, str]:
    """The hashes that room versions 1 and 2 write beside the ids of events."""
    if head.room_version.event_id_format is not EventIdFormat.SERVER_ASSIGNED:
        return {}
    pdus = await list_pdus(conn, [end.event_nid for end in ends])
    return {pdu.event_id: encode_base64(reference_hash(pdu.json, pdu.room_version)) for pdu in (*pdus.values(), *cited)}
