"""Which member events a device was sent already, so that lazy loading need not repeat them.

An entry counts only for a client that has confirmed it: it was sent in a response whose `next_batch` is not above the
`since` that the client comes with. What is forgotten here is merely sent once more.

https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from homeserver.core.ids import DeviceId, UserId

DEVICES_MAX: Final = 2000
MEMBERS_MAX: Final = 2000

_Device = tuple[UserId, DeviceId | None]
_Member = tuple[int, int]


class SentMembers:
    """A bounded memory per process; devices and members that were not met for long are forgotten first."""

    def __init__(self) -> None:
        self._devices: OrderedDict[_Device, OrderedDict[_Member, tuple[int, int]]] = OrderedDict()

    def forget(self, device: _Device) -> None:
        """Forgets a device that starts anew."""
        self._devices.pop(device, None)

    def known(self, device: _Device, room_nid: int, members: Iterable[tuple[int, int]], *, since: int) -> set[int]:
        """Those of the members, pairs of slot and event, that the device has and has confirmed; as slots."""
        sent = self._devices.get(device)
        if sent is None:
            return set()
        known = set()
        for slot_id, event_nid in members:
            entry = sent.get((room_nid, slot_id))
            if entry is not None and entry[0] == event_nid and entry[1] <= since:
                known.add(slot_id)
        return known

    def note(self, device: _Device, room_nid: int, members: Iterable[tuple[int, int]], *, upto: int) -> None:
        """Notes members that are sent in the response that ends at `upto`."""
        sent = self._devices.setdefault(device, OrderedDict())
        self._devices.move_to_end(device)
        while len(self._devices) > DEVICES_MAX:
            self._devices.popitem(last=False)
        for slot_id, event_nid in members:
            sent[(room_nid, slot_id)] = (event_nid, upto)
            sent.move_to_end((room_nid, slot_id))
        while len(sent) > MEMBERS_MAX:
            sent.popitem(last=False)
