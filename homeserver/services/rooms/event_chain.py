"""Making events of drafts: each the successor of the one before, hashed, signed, authorized and ready to be stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.client_event import client_event, federation_remainder
from homeserver.core.event_auth.auth_events import CREATE, auth_event_slots
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.event_builder import EventBuilder
from homeserver.core.event_format import PREV_EVENTS_MAX
from homeserver.core.hashing import reference_hash
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.room_versions import EventIdFormat, RoomVersion
from homeserver.core.signing import SigningKey
from homeserver.core.unpadded_base64 import encode_base64
from homeserver.services.rooms.drafts import Draft, StateEntry
from homeserver.services.rooms.hidden_events import is_hidden
from storage.append import Extremity, NewEvent


@dataclass(frozen=True, slots=True)
class Place:
    """Where events are added, as far as making them needs to know.

    Attributes:
        room_id: None for a room whose id is that of its create event, which is the first event then.
        extremities: what the first event follows.
        entries: the entries of the state before the first event that any of the events looks at; None for empty slots.
        extremity_hashes: the reference hashes of the extremities, for room versions 1 and 2 only.
    """

    room_id: RoomId | None
    room_version: RoomVersion
    extremities: Sequence[Extremity]
    entries: Mapping[StateKey, StateEntry | None]
    extremity_hashes: Mapping[EventId, str]


@dataclass(frozen=True, slots=True)
class ChainedEvent:
    """An event that is ready to be stored, and what stood in its place in the state before."""

    pdu: Pdu
    new_event: NewEvent
    replaces: Pdu | None


def draft_slots(draft: Draft, room_version: RoomVersion) -> frozenset[StateKey]:
    """The entries of the state that making an event of a draft looks at."""
    slots = auth_event_slots(
        event_type=draft.type,
        sender=draft.sender,
        state_key=draft.state_key,
        content=draft.content,
        room_version=room_version,
    )
    own = draft.state_slot
    return slots | {CREATE} if own is None else slots | {CREATE, own}


class EventChain:
    """Makes events, one after the other."""

    def __init__(self, place: Place, *, server_name: ServerName, key: SigningKey, now_ms: int) -> None:
        """Starts at a place, on behalf of a server."""
        self._place = place
        self._room_id = place.room_id
        self._server_name = server_name
        self._key = key
        self._now_ms = now_ms
        self._entries = dict(place.entries)
        extremities = sorted(place.extremities, key=lambda extremity: -extremity.event_nid)[:PREV_EVENTS_MAX]
        self._prev_nids: list[int] = [extremity.event_nid for extremity in extremities]
        self._prev_ids: list[EventId] = [extremity.event_id for extremity in extremities]
        self._depth = max((extremity.depth for extremity in extremities), default=0)
        self._hashes = dict(place.extremity_hashes)
        self._count = 0

    @property
    def state(self) -> Mapping[StateKey, Pdu]:
        """The known entries of the state after the last event."""
        return {slot: entry.pdu for slot, entry in self._entries.items() if entry is not None}

    def add(self, draft: Draft) -> ChainedEvent:
        """Makes the next event.

        Raises:
            Forbidden: the authorization rules do not allow it.
            BadJson: it cannot be an event.
            TooLarge: it is too large.
        """
        room_version = self._place.room_version
        slots = auth_event_slots(
            event_type=draft.type,
            sender=draft.sender,
            state_key=draft.state_key,
            content=draft.content,
            room_version=room_version,
        )
        auth = [entry for slot in sorted(slots) if (entry := self._entries[slot]) is not None]
        if room_version.event_id_format is EventIdFormat.SERVER_ASSIGNED:
            self._hashes.update((entry.pdu.event_id, _hash_of(entry.pdu)) for entry in auth)
        pdu = EventBuilder(
            room_version=room_version,
            room_id=self._room_id,
            type=draft.type,
            sender=draft.sender,
            content=draft.content,
            origin_server_ts=self._now_ms if draft.origin_server_ts is None else draft.origin_server_ts,
            depth=self._depth + 1,
            prev_events=self._prev_ids,
            auth_events=[entry.pdu.event_id for entry in auth],
            state_key=draft.state_key,
            redacts=draft.redacts,
            reference_hashes=self._hashes,
        ).build(server_name=self._server_name, key=self._key)
        check_auth(pdu, self.state)
        slot = draft.state_slot
        replaced = None if slot is None else self._entries.get(slot)
        new_event = stored_form(
            pdu,
            prev_events=self._prev_nids,
            auth_events=[entry.event_nid for entry in auth],
            replaces=None if replaced is None else replaced.pdu,
            draft=draft,
            is_hidden=is_hidden(pdu),
        )
        self._advance(pdu, slot)
        return ChainedEvent(pdu, new_event, None if replaced is None else replaced.pdu)

    def _advance(self, pdu: Pdu, slot: StateKey | None) -> None:
        self._count += 1
        self._room_id = pdu.room_id
        self._prev_nids = [-self._count]
        self._prev_ids = [pdu.event_id]
        self._depth = pdu.depth
        if self._place.room_version.event_id_format is EventIdFormat.SERVER_ASSIGNED:
            self._hashes[pdu.event_id] = _hash_of(pdu)
        if slot is not None:
            self._entries[slot] = StateEntry(-self._count, pdu)


def _hash_of(pdu: Pdu) -> str:
    return encode_base64(reference_hash(pdu.json, pdu.room_version))


def stored_form(
    pdu: Pdu,
    *,
    prev_events: Sequence[int],
    auth_events: Sequence[int],
    replaces: Pdu | None,
    draft: Draft | None = None,
    rejected: str | None = None,
    soft_failed: bool = False,
    thread_root: EventId | None = None,
    redaction: Pdu | None = None,
    is_hidden: bool = False,
) -> NewEvent:
    """An event as it is stored.

    Args:
        pdu: the event.
        prev_events: its previous events that are known, as `NewEvent` refers to them.
        auth_events: likewise.
        replaces: for state, what stands in its place before it.
        draft: what it was made of, if it was made here.
        rejected: why it failed authorization.
        soft_failed: it fits its own past but not the room as it is now.
        thread_root: the root of the thread that it belongs to, if it was not made here.
        redaction: what has redacted it before it came; `pdu` is what was left of it.
        is_hidden: it is shown to nobody.
    """
    unsigned = unsigned_of_state(replaces)
    if redaction is not None:
        unsigned["redacted_because"] = client_event(redaction)
    return NewEvent(
        event_id=pdu.event_id,
        type=pdu.type,
        state_key=pdu.state_key,
        sender=pdu.sender,
        depth=pdu.depth,
        origin_server_ts=pdu.origin_server_ts,
        client_json=client_json(pdu, unsigned),
        federation_json=federation_json(pdu),
        prev_events=prev_events,
        auth_events=auth_events,
        rejected=rejected,
        soft_failed=soft_failed,
        thread_root=draft.thread_root if draft is not None else thread_root,
        device_id=draft.device_id if draft is not None else None,
        transaction_id=draft.transaction_id if draft is not None else None,
        redacted_by=None if redaction is None else redaction.event_id,
        is_hidden=is_hidden,
    )


def unsigned_of_state(replaces: Pdu | None) -> dict[str, Any]:
    """What `unsigned` of a state event tells everybody about the event that stood in its place."""
    if replaces is None:
        return {}
    return {"prev_content": replaces.content, "prev_sender": replaces.sender, "replaces_state": replaces.event_id}


def client_json(pdu: Pdu, unsigned: Mapping[str, Any]) -> str:
    """The text of an event as clients see it; its last member is `unsigned`, even if that is empty."""
    return encode_canonical({**client_event(pdu), "unsigned": unsigned}).decode()


def federation_json(pdu: Pdu) -> str:
    """The text of the rest of an event, which only servers see."""
    return encode_canonical(federation_remainder(pdu)).decode()
