"""How state resolution asks for events it was not given: by value, in batches."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu


@dataclass(frozen=True, slots=True)
class Need:
    """State resolution lacks events: load them, and call again with them among the others.

    Attributes:
        event_ids: the events that are needed.
        with_auth_chains: their auth events, and the auth events of those, are likely to be asked for next. Whoever
            loads (a bounded part of) the auth chains in the same query saves round trips.
    """

    event_ids: frozenset[EventId]
    with_auth_chains: bool = False


class LackingEvents(Exception):
    """Carries a `Need` from where it arises up to `resolve()`, which returns it."""

    def __init__(self, need: Need) -> None:
        super().__init__(f"{len(need.event_ids)} events are lacking")
        self.need = need


class LoadedEvents:
    """The events that state resolution was given, with their ordinals if there are any (see `resolve()`)."""

    __slots__ = ("_events", "_ordinals")

    def __init__(self, events: Mapping[EventId, Pdu], *, ordinals: Mapping[EventId, int] | None = None) -> None:
        self._events = events
        self._ordinals = ordinals

    def __getitem__(self, event_id: EventId) -> Pdu:
        """An event.

        Raises:
            LackingEvents: it was not given.
        """
        event = self._events.get(event_id)
        if event is None:
            raise LackingEvents(Need(frozenset({event_id})))
        return event

    def find(self, event_id: EventId) -> Pdu | None:
        """An event, or None if it was not given."""
        return self._events.get(event_id)

    def require(self, event_ids: Iterable[EventId], *, with_auth_chains: bool = False) -> None:
        """Makes sure that events are there.

        Raises:
            LackingEvents: some are not; it names all of them.
        """
        lacking = frozenset(event_id for event_id in event_ids if event_id not in self._events)
        if lacking:
            raise LackingEvents(Need(lacking, with_auth_chains))

    @property
    def ordered(self) -> bool:
        """Whether there are ordinals."""
        return self._ordinals is not None

    def ordinal(self, event_id: EventId) -> int | None:
        """The ordinal of an event; None where there are none, or for an event that was not given and has none."""
        if self._ordinals is None:
            return None
        return self._ordinals[event_id] if event_id in self._events else self._ordinals.get(event_id)

    def floor(self, event_ids: Collection[EventId]) -> int | None:
        """The smallest ordinal of some events that were given: below it, none of them can be in an auth chain."""
        if self._ordinals is None or not event_ids:
            return None
        return min([self._ordinals[event_id] for event_id in event_ids])
