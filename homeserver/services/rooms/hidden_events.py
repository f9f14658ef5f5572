"""Events that hold the graph of a room together and say nothing: they have successors, and are shown to nobody."""

from typing import Final

from homeserver.core.pdu import Pdu

DUMMY_EVENT: Final = "org.matrix.dummy_event"
"""COMPAT(Synapse, 1.163): it sends events of this type to join the ends of a room's graph, and hides them."""


def is_hidden(pdu: Pdu) -> bool:
    """Whether an event is shown to nobody."""
    return pdu.type == DUMMY_EVENT and pdu.state_key is None
