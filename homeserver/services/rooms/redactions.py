"""Redacting events: the redaction itself, and what it leaves of its target and of the traces of that in other events.

https://spec.matrix.org/v1.19/client-server-api/#redactions
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from homeserver.core.client_event import client_event
from homeserver.core.errors import Forbidden, InvalidParam, UnavailableForNow, UserSuspended
from homeserver.core.event_auth.auth_events import CREATE, POWER_LEVELS, member_slot
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.redaction import redact
from homeserver.core.requester import Requester
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.drafts import CurrentState, Draft, Rewrite
from storage.append import RoomChanged
from storage.database import Connection, Database
from storage.events import StoredEvent, list_events_by_id, list_pdus, list_redacted_by, list_successors

_ATTEMPTS_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class _Traced:
    """An event with its text as it is, in both forms."""

    event: StoredEvent
    pdu: Pdu
    unsigned: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RedactionTarget:
    """What a redaction would change.

    Attributes:
        target: the event to be redacted.
        echoes: other events that repeat something of it in `unsigned`.
    """

    target: _Traced
    echoes: Sequence[_Traced]

    def rewrites(self, *, is_current: bool) -> list[Rewrite]:
        """The texts that the events get; none if the target is redacted already."""
        if self.target.event.redacted_by is not None:
            return []
        pdu = self.target.pdu
        redacted = Pdu.trusted(redact(pdu.json, pdu.room_version), pdu.event_id, pdu.room_version, pdu.room_id)
        kept = {name: self.target.unsigned[name] for name in ("replaces_state",) if name in self.target.unsigned}
        first = _rewrite(replace(self.target, pdu=redacted), kept, is_target=True, is_current=is_current)
        return [first, *(_rewrite(echo, _without(echo, redacted), is_target=False) for echo in self.echoes)]


def _rewrite(traced: _Traced, unsigned: Mapping[str, Any], *, is_target: bool, is_current: bool = False) -> Rewrite:
    return Rewrite(
        event_nid=traced.event.event_nid,
        revision=traced.event.revision,
        pdu=traced.pdu,
        unsigned=unsigned,
        is_target=is_target,
        is_current=is_current,
    )


def _without(echo: _Traced, redacted: Pdu) -> dict[str, Any]:
    """`unsigned` of an event that repeats nothing of a redacted one any more."""
    unsigned = dict(echo.unsigned)
    if unsigned.get("replaces_state") == redacted.event_id:
        unsigned["prev_content"] = redacted.content
    if echo.event.redacted_by == redacted.event_id:
        unsigned["redacted_because"] = client_event(redacted)
    return unsigned


async def find_redaction_target(conn: Connection, room_id: RoomId, event_id: EventId) -> RedactionTarget | None:
    """Reads all that the redaction of an event would change; None if there is no such event in the room."""
    return (await find_redaction_targets(conn, room_id, [event_id])).get(event_id)


async def find_redaction_targets(
    conn: Connection, room_id: RoomId, event_ids: Collection[EventId]
) -> dict[EventId, RedactionTarget]:
    """As `find_redaction_target`, for many events; those that are not in the room are absent."""
    found = await list_events_by_id(conn, event_ids)
    events = [event for event in found.values() if event.room_id == room_id and event.rejected is None]
    states = [event.event_nid for event in events if event.state_key is not None]
    redactions = [event.event_id for event in events if event.type == "m.room.redaction"]
    echoes: dict[int, StoredEvent] = {}
    if states:
        echoes |= {echo.event_nid: echo for echo in await list_successors(conn, states)}
    if redactions:
        echoes |= {echo.event_nid: echo for echo in await list_redacted_by(conn, redactions)}
    pdus = await list_pdus(conn, [*(event.event_nid for event in events), *echoes])
    repeating = [_traced(echo, pdus) for echo in echoes.values()]
    return {
        event.event_id: RedactionTarget(
            _traced(event, pdus), [echo for echo in repeating if _repeats(echo, event.event_id)]
        )
        for event in events
    }


def _traced(event: StoredEvent, pdus: Mapping[int, Pdu]) -> _Traced:
    return _Traced(event, pdus[event.event_nid], orjson.loads(event.client_json)["unsigned"])


def _repeats(echo: _Traced, event_id: EventId) -> bool:
    is_successor = echo.unsigned.get("replaces_state") == event_id and "prev_content" in echo.unsigned
    return is_successor or echo.event.redacted_by == event_id


class Redactions:
    """Redactions by this server's users."""

    def __init__(self, *, db: Database, appender: Appender, server_name: ServerName) -> None:
        self._db = db
        self._appender = appender
        self._server_name = server_name

    async def redact(
        self,
        requester: Requester,
        room_id: RoomId,
        event_id: EventId,
        content: Mapping[str, Any],
        *,
        transaction_id: str | None = None,
        origin_server_ts: int | None = None,
    ) -> EventId:
        """Redacts an event: one's own, with the power to do so anybody's, as an administrator any of this server's.

        Args:
            requester: who redacts.
            room_id: the event's room.
            event_id: the event.
            content: further members of the redaction's content, for example `reason`.
            transaction_id: the request's.
            origin_server_ts: milliseconds since the epoch; None for now.

        Returns:
            The redaction.

        Raises:
            InvalidParam: there is no such event in the room; that it is in another is not told.
            Forbidden: the requester may not redact it, or nobody may.
            UniqueViolation: there is an event of the transaction id already.
        """
        for _ in range(_ATTEMPTS_MAX):
            async with self._db.connection() as conn:
                found = await find_redaction_target(conn, room_id, event_id)

            def compose(state: CurrentState, found: RedactionTarget | None = found) -> Sequence[Draft]:
                rewrites = self._authorized(requester, state, found)
                draft = Draft(
                    type="m.room.redaction",
                    sender=requester.user_id,
                    content=content,
                    redacts=event_id,
                    device_id=None if transaction_id is None else requester.device_id or "",
                    transaction_id=transaction_id,
                    origin_server_ts=origin_server_ts,
                    rewrites=rewrites,
                )
                return (draft,)

            try:
                added = await self._appender.append(room_id, compose, slots=self._slots(requester, found))
            except RoomChanged:
                continue
            return added.events[0].event_id
        raise UnavailableForNow("The event keeps changing")

    def _slots(self, requester: Requester, found: RedactionTarget | None) -> list[StateKey]:
        slots = [CREATE, POWER_LEVELS, member_slot(requester.user_id)]
        if found is not None and found.target.pdu.state_slot is not None:
            slots.append(found.target.pdu.state_slot)
        return slots

    def _authorized(
        self, requester: Requester, state: CurrentState, found: RedactionTarget | None
    ) -> Sequence[Rewrite]:
        """What the redaction changes, if the requester may redact the event."""
        create, member = state.find(CREATE), state.find(member_slot(requester.user_id))
        if create is None or member is None or member.membership != "join":
            raise Forbidden("You are not in the room")
        if found is None:
            raise InvalidParam("There is no such event in the room")
        target = found.target.pdu
        if target.type == "m.room.create":
            raise Forbidden("The create event cannot be redacted")
        is_own = target.sender == requester.user_id
        if not is_own and requester.is_suspended:
            raise UserSuspended("You cannot do this while your account is suspended")
        levels = PowerLevels.in_force(state.find(POWER_LEVELS), create)
        has_power = levels.user_level(requester.user_id) >= levels.redact
        is_ours = requester.is_admin and target.sender.server_name == self._server_name
        if not (is_own or has_power or is_ours):
            raise Forbidden("You may not redact this event")
        slot = target.state_slot
        current = None if slot is None else state.find(slot)
        return found.rewrites(is_current=current is not None and current.event_id == target.event_id)
