"""What states say at their slots, for those events of which one value decides: memberships and history visibilities."""

from collections.abc import Collection, Mapping
from typing import Any

from homeserver.core.pdu import StateKey
from homeserver.core.visibility import HistoryVisibility
from storage.bounded_cache import BoundedCache
from storage.database import Connection
from storage.events import list_events
from storage.state import StateStore


class StateValues:
    """Reads the membership or the history visibility that events of states set. It reads on the caller's connection."""

    def __init__(self, *, states: StateStore, cache_name: str, values_max: int = 50_000) -> None:
        """Takes the store of states, the name of its own memory, and how many values that holds."""
        self._states = states
        # By event; neither redaction nor anything else changes them.
        self._values: BoundedCache[int, str] = BoundedCache(cache_name, weight_max=values_max)

    async def at_slots(
        self, conn: Connection, state_ids: Collection[int], slots: Collection[StateKey]
    ) -> dict[tuple[int, StateKey], str]:
        """What states say at slots, by state and slot. Empty slots are absent."""
        slot_ids = await self._states.find_slots(conn, slots)
        snapshots = await self._states.load_many(conn, state_ids)
        nids = {
            (state_id, slot): event_nid
            for state_id, snapshot in snapshots.items()
            for slot, slot_id in slot_ids.items()
            if (event_nid := snapshot.find(slot_id)) is not None
        }
        values = await self.of_events(conn, set(nids.values()))
        return {entry: values[event_nid] for entry, event_nid in nids.items()}

    async def of_events(self, conn: Connection, event_nids: Collection[int]) -> dict[int, str]:
        """What events say, by their numbers: a member event its membership (empty if it is no text), others the history
        visibility.
        """
        values: dict[int, str] = {}
        missing = []
        for event_nid in event_nids:
            value = self._values.get(event_nid)
            if value is None:
                missing.append(event_nid)
            else:
                values[event_nid] = value
        for event in await list_events(conn, missing):
            values[event.event_nid] = _value_of(event.type, event.content)
            self._values.put(event.event_nid, values[event.event_nid])
        return values


def _value_of(event_type: str, content: Mapping[str, Any]) -> str:
    if event_type == "m.room.member":
        membership = content.get("membership")
        return membership if isinstance(membership, str) else ""
    return HistoryVisibility.of_content(content).value
