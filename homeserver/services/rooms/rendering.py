"""Events in the form that one client is given.

What depends on the reader or on the moment (`age`, `transaction_id`, `membership`, bundled aggregations) is spliced
into the stored JSON text, so that an event is neither parsed nor encoded again.

https://spec.matrix.org/v1.19/client-server-api/#room-event-format
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from homeserver.core.clock import Clock
from homeserver.core.event_fields import EventFields, apply_event_fields
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu
from homeserver.core.requester import Requester
from homeserver.services.rooms.aggregations import Aggregations
from homeserver.services.rooms.unsigned import MEMBERSHIPS, splice_unsigned, with_age
from storage.database import Connection
from storage.events import StoredEvent, list_pdus


@dataclass(frozen=True, slots=True)
class EventForm:
    """How a client wants its events.

    Attributes:
        fields: the members that it wants; None for all.
        federation: it wants them as servers exchange them.
    """

    fields: EventFields | None = None
    federation: bool = False


CLIENT_FORM: Final = EventForm()


class EventRenderer:
    """Makes the JSON of events for a reader."""

    def __init__(self, *, clock: Clock, aggregations: Aggregations) -> None:
        self._clock = clock
        self._aggregations = aggregations

    async def render(
        self,
        conn: Connection,
        events: Sequence[StoredEvent],
        requester: Requester,
        *,
        memberships: Mapping[EventId, str] | None = None,
        form: EventForm = CLIENT_FORM,
        bundle: bool = True,
    ) -> list[Any]:
        """The events in a client's form, ready to be encoded, in their order.

        Args:
            events: events that the requester may see; whoever calls has checked that.
            memberships: the requester's membership at each event, for `unsigned.membership`.
            form: which form and which members are wanted.
            bundle: whether `unsigned.m.relations` is wanted.
        """
        bundles: Mapping[EventId, dict[str, Any]] = {}
        if bundle and events:
            bundles = await self._aggregations.bundle(conn, events, requester)
        pdus = await list_pdus(conn, [event.event_nid for event in events]) if form.federation else {}
        held: Mapping[EventId, str] = memberships or {}
        now_ms = self._clock.now_ms()
        return [
            _rendered(
                event,
                requester,
                age_ms=max(0, now_ms - event.origin_server_ts),
                membership=held.get(event.event_id),
                relations=bundles.get(event.event_id),
                form=form,
                pdu=pdus.get(event.event_nid),
            )
            for event in events
        ]


def _rendered(
    event: StoredEvent,
    requester: Requester,
    *,
    age_ms: int,
    membership: str | None,
    relations: Mapping[str, Any] | None,
    form: EventForm,
    pdu: Pdu | None,
) -> Any:
    """One event in a client's form. `pdu` is what servers exchange, where that form is wanted."""
    is_told_back = event.transaction_id is not None and _is_from(event, requester)
    if form is CLIENT_FORM and not relations and not is_told_back and (membership is None or membership in MEMBERSHIPS):
        # So are nearly all, and this is the shortest way.
        return orjson.Fragment(with_age(event.client_json, age_ms, membership=membership))
    additions: dict[str, Any] = {"age": age_ms}
    if membership is not None:
        additions["membership"] = membership
    if is_told_back:
        additions["transaction_id"] = event.transaction_id
    if relations:
        additions["m.relations"] = relations
    if pdu is not None:
        named = {"event_id": event.event_id, "room_id": event.room_id}
        return apply_event_fields({**pdu.json, **named, "unsigned": additions}, form.fields)
    spliced = splice_unsigned(event.client_json, additions)
    if form.fields is None:
        return orjson.Fragment(spliced)
    return apply_event_fields(orjson.loads(spliced), form.fields)


def _is_from(event: StoredEvent, requester: Requester) -> bool:
    """Whether the requester's own device sent the event."""
    return event.sender == requester.user_id and event.device_id == (requester.device_id or "")
