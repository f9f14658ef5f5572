"""Making events of our own: from the members that differ to the hashed and signed PDU, in one pass.

https://spec.matrix.org/v1.19/server-server-api/#adding-hashes-and-signatures-to-outgoing-events
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from homeserver.core.canonical_json import INTEGER_MAX, encode_canonical, encode_strict, parse_json
from homeserver.core.errors import BadJson, TooLarge
from homeserver.core.event_format import (
    AUTH_EVENTS_MAX,
    EVENT_BYTES_MAX,
    PREV_EVENTS_MAX,
    check_event_keys,
)
from homeserver.core.hashing import essential_json, hashed_event_id
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import EventIdFormat, RoomVersion
from homeserver.core.signing import SigningKey
from homeserver.core.unpadded_base64 import encode_base64, encode_base64_url_safe

# Enough for a place of its own in the server's name space, and short beside the longest server name.
_ASSIGNED_ID_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBuilder:
    """An event that has no hashes, no signature and no id yet.

    Attributes:
        room_id: None for the create event of room version 12 and later, which makes the room's id, and only for it.
        state_key: None for an event that is no state.
        redacts: what an `m.room.redaction` redacts; the builder puts it where the room version wants it.
        depth: one more than the largest depth of the previous events; cut to 2^53 - 1. Room versions 1 to 5 allow more,
            but COMPAT(Synapse, 1.163): it takes no larger depth in any version.
        reference_hashes: the reference hash, in unpadded base64, of each event named in `prev_events` and
            `auth_events`. Room versions 1 and 2 write it beside the id; from 3 on the id says it and this is not used.
            An empty one leaves it out, for an event that this server does not have.
        unsigned: what other servers shall be told outside of the signature.
    """

    room_version: RoomVersion
    room_id: RoomId | None
    type: str
    sender: UserId
    content: Mapping[str, Any]
    origin_server_ts: int
    depth: int
    prev_events: Sequence[EventId]
    auth_events: Sequence[EventId]
    state_key: str | None = None
    redacts: EventId | None = None
    reference_hashes: Mapping[EventId, str] = field(default_factory=dict)
    unsigned: Mapping[str, Any] | None = None

    def template(self) -> dict[str, Any]:
        """The event without `event_id`, `origin`, `hashes`, `signatures` and `unsigned`, which whoever signs it adds.

        Raises:
            KeyError: `reference_hashes` lacks an event, in room versions 1 and 2.
        """
        content = self.content
        if self.redacts is not None and self.room_version.redacts_in_content:
            content = {**content, "redacts": self.redacts}
        event: dict[str, Any] = {
            "type": self.type,
            "sender": self.sender,
            "content": content,
            "origin_server_ts": self.origin_server_ts,
            "depth": min(self.depth, INTEGER_MAX),
            "prev_events": self._references(self.prev_events),
            "auth_events": self._references(self.auth_events),
        }
        if self.room_id is not None:
            event["room_id"] = self.room_id
        if self.state_key is not None:
            event["state_key"] = self.state_key
        if self.redacts is not None and not self.room_version.redacts_in_content:
            event["redacts"] = self.redacts
        return event

    def build(self, *, server_name: ServerName, key: SigningKey) -> Pdu:
        """Makes the complete event: hashed, signed by this server, and with its id.

        In room versions 1 and 2 the id is made of the event's hash too, so that nothing needs to be drawn at random.

        Raises:
            BadJson: the content cannot stand in an event of the room version, the type or the state key have characters
                that cannot be stored, the event refers to more events than allowed, or it would be a second create
                event in a room whose id is made of the first.
            TooLarge: the event, its type or its state key is larger than allowed.
            KeyError: `reference_hashes` lacks an event, in room versions 1 and 2.
        """
        self._check()
        room_version, event = self.room_version, self.template()
        if self.type == "m.room.member":
            # No rule uses it, but the server-server API asks for it where servers hand memberships to each other.
            event["origin"] = str(server_name)
        encode = encode_strict if room_version.strict_canonical_json else encode_canonical
        if room_version.event_id_format is EventIdFormat.SERVER_ASSIGNED:
            digest = hashlib.sha256(encode(event)).digest()
            event["event_id"] = f"${encode_base64_url_safe(digest[:_ASSIGNED_ID_BYTES])}:{server_name}"
        hashed = encode(event)
        # Read back, the event shares nothing with the caller's content, and identifiers that are keys become plain.
        event = parse_json(hashed)
        rest: dict[str, Any] = {"hashes": {"sha256": encode_base64(hashlib.sha256(hashed).digest())}}
        essential = essential_json(event | rest, room_version)
        rest["signatures"] = {str(server_name): {key.key_id: key.sign(essential)}}
        if self.unsigned is not None:
            rest["unsigned"] = self.unsigned
        encoded_rest = encode(rest)
        # Two objects become one: of four braces two are left, and one comma joins the members.
        if len(hashed) + len(encoded_rest) - 1 > EVENT_BYTES_MAX:
            raise TooLarge(f"An event is at most {EVENT_BYTES_MAX} bytes long")
        event |= parse_json(encoded_rest)
        if "event_id" in event:
            event_id = EventId(event["event_id"])
        else:
            event_id = hashed_event_id(hashlib.sha256(essential).digest(), room_version)
        room_id = RoomId(f"!{event_id[1:]}") if self.room_id is None else self.room_id
        return Pdu.trusted(event, event_id, room_version, room_id)

    def _check(self) -> None:
        makes_room = self.room_version.room_id_is_create_hash and self.type == "m.room.create"
        if makes_room and self.room_id is not None:
            raise BadJson("In this room version a create event makes a new room")
        if not makes_room and self.room_id is None:
            raise ValueError("Only the create event of room version 12 and later has no room id")
        if not isinstance(self.content, dict):
            raise BadJson("The content of an event is an object")
        check_event_keys(self.type, self.state_key)
        if len(self.prev_events) > PREV_EVENTS_MAX or len(self.auth_events) > AUTH_EVENTS_MAX:
            raise BadJson("The event refers to too many others")

    def _references(self, event_ids: Sequence[EventId]) -> list[Any]:
        if self.room_version.event_id_format is EventIdFormat.SERVER_ASSIGNED:
            digests = [(event_id, self.reference_hashes[event_id]) for event_id in event_ids]
            return [[event_id, {"sha256": digest} if digest else {}] for event_id, digest in digests]
        return list(event_ids)
