"""Which member events a device was sent already, so that lazy loading need not repeat them.

What a response brought counts once the client has confirmed it, by coming back with that response's `next_batch`. A
client that comes with another token (it begins anew, or another process has served it meanwhile) may know nothing.

https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members
"""

from collections import OrderedDict
from collections.abc import Collection, Set
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.ids import DeviceId, UserId

DEVICES_MAX: Final = 2000
MEMBERS_MAX: Final = 2000

Device = tuple[UserId, DeviceId | None]


@dataclass(slots=True)
class _Sent:
    """What one device was sent.

    Attributes:
        since: where its last response began; None for a first sync.
        upto: where that ended.
        last: what it brought, as `event_nid`s.
        confirmed: what those before it brought, the oldest first.
    """

    since: int | None
    upto: int
    last: Collection[int] = ()
    confirmed: OrderedDict[int, None] = field(default_factory=OrderedDict)


class SentMembers:
    """A bounded memory of one process; devices and members that were not met for long are forgotten first."""

    def __init__(self) -> None:
        """Starts with nothing in memory."""
        self._devices: OrderedDict[Device, _Sent] = OrderedDict()

    def confirmed(self, device: Device, *, since: int | None) -> Set[int]:
        """The member events that a device has which comes with this token."""
        sent = self._devices.get(device)
        if sent is None or since is None:
            return frozenset()
        if since == sent.upto and since != sent.since:
            for event_nid in sent.last:
                sent.confirmed[event_nid] = None
                sent.confirmed.move_to_end(event_nid)
            sent.since, sent.last = since, ()
        return sent.confirmed.keys() if since == sent.since else frozenset()

    def note(self, device: Device, event_nids: Collection[int], *, since: int | None, upto: int) -> None:
        """Notes the member events of a device's response; see `confirmed`, which is to be asked before."""
        sent = self._devices.get(device)
        if sent is None or since is None or sent.since != since:
            sent = self._devices[device] = _Sent(since, upto)
        sent.upto, sent.last = upto, event_nids
        while len(sent.confirmed) > MEMBERS_MAX:
            sent.confirmed.popitem(last=False)
        self._devices.move_to_end(device)
        while len(self._devices) > DEVICES_MAX:
            self._devices.popitem(last=False)
