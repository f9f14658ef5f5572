"""The one way in for events of other servers, by whichever request they came: form, signatures, hash.

These are the first three checks on receipt. What passes is well-formed and was really signed by those who must have
signed it, and has lost its content if that was not what its origin had hashed. Nothing else is known of it yet: whether
the room allows it is judged later (`outliers.py`, `incoming.py`).

https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from homeserver.core.clock import Clock
from homeserver.core.errors import BadJson, InvalidParam, TooLarge
from homeserver.core.event_format import parse_pdu
from homeserver.core.hashing import content_hash_matches, essential_json
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.redaction import redact
from homeserver.core.room_versions import EventIdFormat, RoomVersion
from homeserver.core.signing import signature_key_ids, verify_signature
from homeserver.services.remote import EventJson, KeyWish, ServerKey, ServerKeys

EVENTS_MAX: Final = 250_000
"""How many events are looked at in one call; the largest rooms have a state of about this size."""

POLICY_KEY_ID: Final = "ed25519:policy_server"
"""The key of policy servers, which stands in the state of rooms and is published nowhere."""

_SIGNATURES_OF_SERVER_MAX: Final = 8
_KEY_VALID_AHEAD_MS: Final = 7 * 24 * 3600 * 1000
_CHUNK: Final = 200
_INLINE_MAX: Final = 4
"""So few events are checked at once faster than a thread can be asked."""

_Keys = Mapping[tuple[ServerName, str], ServerKey]
_Input = TypeVar("_Input")
_Output = TypeVar("_Output")


@dataclass(frozen=True, slots=True)
class DroppedEvent:
    """An event that did not pass.

    Attributes:
        index: its place among the events that were checked.
        event_id: None if it is too malformed to have one.
        reason: for the other server, in words.
    """

    index: int
    event_id: EventId | None
    reason: str


@dataclass(frozen=True, slots=True)
class GateResult:
    """What became of some events.

    Attributes:
        passed: those that may be looked at further, in their order; without content where their hash was wrong.
        dropped: the others.
    """

    passed: Sequence[Pdu]
    dropped: Sequence[DroppedEvent]


@dataclass(frozen=True, slots=True)
class _Claim:
    """A well-formed event that says by whom it is signed.

    Attributes:
        message: what signatures cover.
        signatures: the keys with which each server that must sign claims to have done so.
    """

    index: int
    pdu: Pdu
    message: bytes
    signatures: Mapping[ServerName, Sequence[str]]


class EventGate:
    """Checks events of other servers."""

    def __init__(self, *, keys: ServerKeys, clock: Clock) -> None:
        """Takes where keys of servers are had from; `keys` must know this server's own key as well."""
        self._keys = keys
        self._clock = clock

    async def check(
        self,
        room_version: RoomVersion,
        events: Sequence[EventJson],
        *,
        room_id: RoomId | None,
        signers: Collection[ServerName] = (),
        any_number_of_references: bool = False,
    ) -> GateResult:
        """Checks events of one room.

        Args:
            room_version: of their room.
            events: as they came. `unsigned` is bound by no signature and is taken away.
            room_id: the room that they must belong to; None if that is not known, as for a room that is new here.
            signers: servers that must have signed each of them, beside those that must by the room's version.
            any_number_of_references: they may have more previous and auth events than new ones; see `parse_pdu`.
        """
        dropped = [DroppedEvent(index, None, "There are too many events") for index in range(EVENTS_MAX, len(events))]
        numbered = list(enumerate(events[:EVENTS_MAX]))
        read_event = partial(
            _read_event,
            room_version=room_version,
            room_id=room_id,
            further_signers=signers,
            any_number_of_references=any_number_of_references,
        )
        read = await run_on(numbered, lambda chunk: [read_event(json, index) for index, json in chunk])
        claims = [each for each in read if isinstance(each, _Claim)]
        dropped += [each for each in read if isinstance(each, DroppedEvent)]
        keys = await self._fetch_keys(claims)
        now_ms = self._clock.now_ms()
        faults = await run_on(claims, lambda chunk: [_signature_fault(claim, keys, now_ms) for claim in chunk])
        passed: list[Pdu] = []
        for claim, fault in zip(claims, faults, strict=True):
            if fault is None:
                passed.append(claim.pdu)
            else:
                dropped.append(DroppedEvent(claim.index, claim.pdu.event_id, fault))
        return GateResult(passed, sorted(dropped, key=lambda each: each.index))

    async def admit(self, room_version: RoomVersion, event: EventJson, *, room_id: RoomId | None) -> Pdu:
        """Checks one event.

        Raises:
            BadJson: it does not pass.
        """
        result = await self.check(room_version, [event], room_id=room_id)
        if result.dropped:
            raise BadJson(result.dropped[0].reason)
        return result.passed[0]

    async def _fetch_keys(self, claims: Sequence[_Claim]) -> _Keys:
        """The keys that the claims name, as far as they can be had; each with the latest time it is needed for."""
        latest_ms = self._clock.now_ms() + _KEY_VALID_AHEAD_MS
        wishes: dict[tuple[ServerName, str], int | None] = {}
        for claim in claims:
            enforced = claim.pdu.room_version.key_validity_enforced
            valid_at_ts = min(claim.pdu.origin_server_ts, latest_ms) if enforced else None
            for server_name, key_ids in claim.signatures.items():
                for key_id in key_ids:
                    before = wishes.get((server_name, key_id))
                    known = [each for each in (before, valid_at_ts) if each is not None]
                    wishes[(server_name, key_id)] = max(known) if known else None
        if not wishes:
            return {}
        return await self._keys.fetch([KeyWish(name, key_id, ts) for (name, key_id), ts in wishes.items()])


def name_events(room_version: RoomVersion, events: Sequence[EventJson], *, room_id: RoomId) -> list[EventId]:
    """The ids of those of some events that are well-formed, for an answer about events that are not looked at."""
    named = []
    for event in events:
        try:
            named.append(parse_pdu(event, room_version, room_id=room_id).event_id)
        except (BadJson, TooLarge):
            continue
    return named


async def run_on(events: Sequence[_Input], work: Callable[[Sequence[_Input]], list[_Output]]) -> list[_Output]:
    """Does work on events, chunk by chunk, in a thread if they are many."""
    if len(events) <= _INLINE_MAX:
        return work(events)
    chunks = (events[start : start + _CHUNK] for start in range(0, len(events), _CHUNK))
    return [output for chunk in chunks for output in await asyncio.to_thread(work, chunk)]


def _read_event(
    json: EventJson,
    index: int,
    *,
    room_version: RoomVersion,
    room_id: RoomId | None,
    further_signers: Collection[ServerName],
    any_number_of_references: bool,
) -> _Claim | DroppedEvent:
    """Checks form and hash of an event, and finds out who must have signed it."""
    try:
        # Servers add to `unsigned` what they like: it counts for nothing, not even for the size.
        bare = {name: value for name, value in json.items() if name != "unsigned"} if isinstance(json, dict) else json
        pdu = parse_pdu(bare, room_version, room_id=room_id, any_number_of_references=any_number_of_references)
    except (BadJson, TooLarge) as error:
        return DroppedEvent(index, _claimed_id(json, room_version), error.message)
    if not content_hash_matches(pdu.json):
        pdu = Pdu.trusted(redact(pdu.json, room_version), pdu.event_id, room_version, pdu.room_id)
    try:
        # By what is left of the event: an exception must not rest on members that were forged.
        signers = {*required_signers(pdu), *further_signers}
    except InvalidParam as error:
        return DroppedEvent(index, pdu.event_id, error.message)
    signatures = {server_name: _key_ids(pdu.json, server_name) for server_name in signers}
    return _Claim(index, pdu, essential_json(pdu.json, room_version), signatures)


def _claimed_id(json: object, room_version: RoomVersion) -> EventId | None:
    """The id that a malformed event gives itself."""
    if not isinstance(json, dict) or room_version.event_id_format is not EventIdFormat.SERVER_ASSIGNED:
        return None
    try:
        return EventId.parse(json.get("event_id"))
    except InvalidParam:
        return None


def required_signers(pdu: Pdu) -> Collection[ServerName]:
    """The servers that must have signed an event.

    Raises:
        InvalidParam: the event says by whom a join was authorised, and that is no user.
    """
    signers: set[ServerName] = set()
    # Whoever exchanges a third-party invite makes an event of somebody else; the auth rules check its own signature.
    if not (pdu.membership == "invite" and "third_party_invite" in pdu.content):
        signers.add(pdu.sender.server_name)
    if pdu.event_id.server_name is not None and pdu.room_version.event_id_format is EventIdFormat.SERVER_ASSIGNED:
        signers.add(pdu.event_id.server_name)
    vouching = pdu.content.get("join_authorised_via_users_server")
    if pdu.membership == "join" and vouching is not None and pdu.room_version.restricted_join_allowed:
        signers.add(UserId.parse(vouching).server_name)
    return signers


def _key_ids(json: Mapping[str, Any], server_name: ServerName) -> Sequence[str]:
    """The keys that are asked for; honest servers sign with one, or with two while they change it."""
    key_ids = sorted(key_id for key_id in signature_key_ids(json, server_name) if key_id != POLICY_KEY_ID)
    return key_ids[:_SIGNATURES_OF_SERVER_MAX]


def _signature_fault(claim: _Claim, keys: _Keys, now_ms: int) -> str | None:
    """What is wrong with the signatures of an event; None if nothing is.

    Each server must have signed by a key that is known and was valid; signatures by other keys count for nothing, but
    one that is wrong spoils the event.
    """
    for server_name, key_ids in claim.signatures.items():
        good = 0
        for key_id, key in _usable_keys(claim.pdu, server_name, key_ids, keys, now_ms):
            signature = claim.pdu.json["signatures"][server_name][key_id]
            if not verify_signature(claim.message, signature, key.key):
                return f"The signature of {server_name} by {key_id} is wrong"
            good += 1
        if not good:
            return f"There is no signature of {server_name} by a key that is known and was valid then"
    return None


def _usable_keys(
    pdu: Pdu, server_name: ServerName, key_ids: Sequence[str], keys: _Keys, now_ms: int
) -> Iterator[tuple[str, ServerKey]]:
    for key_id in key_ids:
        key = keys.get((server_name, key_id))
        if key is None:
            continue
        valid_until_ts = key.valid_until_ts if key.is_retired else min(key.valid_until_ts, now_ms + _KEY_VALID_AHEAD_MS)
        if not pdu.room_version.key_validity_enforced or pdu.origin_server_ts <= valid_until_ts:
            yield key_id, key
