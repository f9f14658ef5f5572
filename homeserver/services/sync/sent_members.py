"""Which member events a device was sent already, so that lazy loading need not repeat them.

What a response brought counts once the client has confirmed it, by coming back with that response's `next_batch`. A
client that comes with another token (it begins anew, or another process has served it meanwhile) may know nothing.

https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.ids import DeviceId, UserId
from storage.bounded_cache import BoundedCache

MEMBERS_MAX: Final = 2000
MEMBERS_OF_ALL_MAX: Final = 200_000
_MEMBER_BYTES: Final = 120
# What a device takes beside its members, in members.
_DEVICE_WEIGHT: Final = 5

Device = tuple[UserId, DeviceId | None]


@dataclass(slots=True)
class _Sent:
    """What one device was sent.

    Attributes:
        since: where its last response began; None for a first sync.
        upto: where that ended.
        last: what it brought: member events and their rooms, as `event_nid` and `room_nid`.
        confirmed: what those before it brought, the oldest first.
    """

    since: int | None
    upto: int
    last: Mapping[int, int] = field(default_factory=dict)
    confirmed: OrderedDict[int, int] = field(default_factory=OrderedDict)


class SentMembers:
    """A bounded memory of one process; devices and members that were not met for long are forgotten first."""

    def __init__(self) -> None:
        """Starts with nothing in memory."""
        self._devices: BoundedCache[Device, _Sent] = BoundedCache(
            "sent_members",
            weight_max=MEMBERS_OF_ALL_MAX,
            weigh=lambda sent: _DEVICE_WEIGHT + len(sent.last) + len(sent.confirmed),
            bytes_each=_MEMBER_BYTES,
        )

    def confirmed(self, device: Device, *, since: int | None) -> Set[int]:
        """The member events that a device has which comes with this token."""
        sent = self._devices.get(device)
        if sent is None or since is None:
            return frozenset()
        if since == sent.upto and since != sent.since:
            # Out of the memory while its weight changes; the same below.
            self._devices.discard(device)
            for event_nid, room_nid in sent.last.items():
                sent.confirmed[event_nid] = room_nid
                sent.confirmed.move_to_end(event_nid)
            sent.since, sent.last = since, {}
            self._devices.put(device, sent)
        return sent.confirmed.keys() if since == sent.since else frozenset()

    def forget_rooms(self, device: Device, room_nids: Collection[int]) -> None:
        """Forgets what a device knows of rooms that are new to it: it may have left and forgotten them before."""
        sent = self._devices.get(device)
        if sent is not None and room_nids:
            self._devices.discard(device)
            kept = (
                (event_nid, room_nid) for event_nid, room_nid in sent.confirmed.items() if room_nid not in room_nids
            )
            sent.confirmed = OrderedDict(kept)
            self._devices.put(device, sent)

    def note(self, device: Device, members: Mapping[int, int], *, since: int | None, upto: int) -> None:
        """Notes the member events (`event_nid`) of a device's response, with their rooms (`room_nid`)."""
        self.confirmed(device, since=since)
        sent = self._devices.get(device)
        self._devices.discard(device)
        if sent is None or since is None or sent.since != since:
            sent = _Sent(since, upto)
        sent.upto, sent.last = upto, members
        while len(sent.confirmed) > MEMBERS_MAX:
            sent.confirmed.popitem(last=False)
        self._devices.put(device, sent)
