"""State resolution: the one state that follows from several.

https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution
"""

from collections.abc import Mapping, Sequence, Set

from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu, StateMap
from homeserver.core.room_versions import RoomVersion, StateResolution
from homeserver.core.state_resolution.need import LackingEvents, LoadedEvents, Need
from homeserver.core.state_resolution.v1 import resolve_v1
from homeserver.core.state_resolution.v2 import resolve_v2


def resolve(
    room_version: RoomVersion,
    state_sets: Sequence[StateMap],
    events: Mapping[EventId, Pdu],
    *,
    rejected: Set[EventId] = frozenset(),
    ordinals: Mapping[EventId, int] | None = None,
) -> StateMap | Need:
    """Resolves the states after several events into one.

    The answer depends neither on the order of the states nor on how much is loaded beyond what is needed. With ordinals
    only events in dispute, their auth events, and the few entries that decide about them are asked for.

    Args:
        room_version: of the room.
        state_sets: the states to merge.
        events: what the caller has loaded of the room so far; it may be empty at first.
        rejected: at least those rejected events that are in `events` or the states.
        ordinals: a number for each event, larger than those of all its auth events, for example the order in which the
            server stored them; for all of `events` and `state_sets`. It changes no answer but keeps the walks over the
            auth chains short: without it they lead back to the beginning of the room, in large rooms from all members.

    Returns:
        The resolved state, or the events that are needed to find it.
    """
    if not state_sets:
        return {}
    if all(state == state_sets[0] for state in state_sets):
        return dict(state_sets[0])
    loaded = LoadedEvents(events, ordinals=ordinals)
    try:
        if room_version.state_resolution is StateResolution.V1:
            return resolve_v1(state_sets, loaded, rejected=rejected)
        return resolve_v2(state_sets, loaded, rejected=rejected, revision=room_version.state_resolution)
    except LackingEvents as lacking:
        return lacking.need
