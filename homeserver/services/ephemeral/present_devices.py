"""The devices that this process sees, and what of that is due to be written: changes at once, the rest once a minute.

Nothing here waits or writes; `presence.py` does.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.ids import UserId
from storage.presence import PresenceSource

RENEWAL_SECONDS: Final = 60.0
DEVICES_MAX: Final = 200_000
BATCH_MAX: Final = 500
# A user whose activity has not been written for so long is forgotten here.
FORGET_SECONDS: Final = 600.0

Key = tuple[UserId, str]


@dataclass(slots=True)
class _Device:
    presence: str
    seen_at: float
    syncs: int = 0
    # What the database has; None if nothing.
    written: str | None = None
    written_at: float = 0.0


@dataclass(slots=True)
class _Activity:
    noted_ts: int | None = None
    written_at: float | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be written.

    Attributes:
        sources: devices that have come, changed, gone, or must be renewed.
        active_ts: when users were last active, for those whose last writing was long ago.
    """

    sources: Collection[PresenceSource] = ()
    active_ts: dict[UserId, int] = field(default_factory=dict)

    @property
    def users(self) -> frozenset[UserId]:
        """All users that are concerned."""
        return frozenset({source.user_id for source in self.sources} | self.active_ts.keys())


class PresentDevices:
    """Devices that sync here or did so a moment ago, and the last activity of users."""

    def __init__(self, *, clock: Clock, offline_seconds: float, activity_seconds: float = RENEWAL_SECONDS) -> None:
        """Takes how long after its last sync a device is offline, and how often activity is written at most."""
        self._clock = clock
        self._offline_seconds = offline_seconds
        self._activity_seconds = activity_seconds
        self._devices: dict[Key, _Device] = {}
        self._changed: set[Key] = set()
        self._activities: dict[UserId, _Activity] = {}
        self._active: set[UserId] = set()

    def begin_sync(self, user_id: UserId, device_id: str, *, presence: str) -> None:
        """A sync has begun that asks for this presence; `end_sync` must follow. More than can be known is ignored."""
        device = self._devices.get((user_id, device_id))
        if device is None:
            if len(self._devices) >= DEVICES_MAX:
                return
            device = self._devices[user_id, device_id] = _Device(presence="offline", seen_at=0.0)
        if presence == "online" and device.presence != "online":
            self.note_activity(user_id)
        if presence != device.presence:
            device.presence = presence
            self._changed.add((user_id, device_id))
        device.seen_at = self._clock.monotonic()
        device.syncs += 1

    def end_sync(self, user_id: UserId, device_id: str) -> None:
        """A sync has ended."""
        device = self._devices.get((user_id, device_id))
        if device is not None and device.syncs:
            device.syncs -= 1
            device.seen_at = self._clock.monotonic()

    def note_written(self, source: PresenceSource) -> None:
        """A device has been seen, and written already."""
        now = self._clock.monotonic()
        key = (source.user_id, source.device_id)
        if key not in self._devices and len(self._devices) >= DEVICES_MAX:
            return
        device = self._devices.setdefault(key, _Device(presence=source.presence, seen_at=now))
        device.presence = source.presence
        device.seen_at = device.written_at = now
        device.written = None if source.presence == "offline" else source.presence

    def note_activity(self, user_id: UserId) -> None:
        """A user has done something."""
        if user_id not in self._activities and len(self._activities) >= DEVICES_MAX:
            return
        self._activities.setdefault(user_id, _Activity()).noted_ts = self._clock.now_ms()
        self._active.add(user_id)

    @property
    def may_have_changed(self) -> bool:
        """Whether there may be anything to take."""
        return bool(self._changed or self._active)

    def take_changed(self) -> Due:
        """What has changed since the last call and is now taken as written; a bounded number of devices and users."""
        keys = [self._changed.pop() for _ in range(min(BATCH_MAX, len(self._changed)))]
        return Due(sources=self._due_sources(keys), active_ts=self._due_activities())

    def mark_overdue(self) -> None:
        """Looks at everything: devices that have gone or must be renewed are taken with the next calls."""
        now = self._clock.monotonic()
        for key, device in self._devices.items():
            is_old = now - device.written_at >= RENEWAL_SECONDS
            if (
                self._wanted(device) != (device.written or "offline")
                or (device.written and is_old)
                or self._gone(device)
            ):
                self._changed.add(key)
        for user_id in [user for user, activity in self._activities.items() if self._forgettable(activity)]:
            del self._activities[user_id]

    def put_back(self, due: Due) -> None:
        """What was taken could not be written: it will be taken again."""
        for source in due.sources:
            key = (source.user_id, source.device_id)
            device = self._devices.setdefault(key, _Device(presence="offline", seen_at=0.0))
            # As if the database had something else, which it may.
            device.written = "unavailable" if source.presence == "offline" else None
            self._changed.add(key)
        for user_id, noted_ts in due.active_ts.items():
            activity = self._activities.setdefault(user_id, _Activity())
            activity.noted_ts = activity.noted_ts or noted_ts
            activity.written_at = None
            self._active.add(user_id)

    def _gone(self, device: _Device) -> bool:
        return not device.syncs and self._clock.monotonic() - device.seen_at > self._offline_seconds

    def _wanted(self, device: _Device) -> str:
        return "offline" if self._gone(device) else device.presence

    def _due_sources(self, keys: Collection[Key]) -> list[PresenceSource]:
        now = self._clock.monotonic()
        sources = []
        for key in keys:
            device = self._devices.get(key)
            if device is None:
                continue
            wanted = self._wanted(device)
            is_old = now - device.written_at >= RENEWAL_SECONDS
            if wanted != (device.written or "offline") or (device.written and is_old):
                sources.append(PresenceSource(user_id=key[0], device_id=key[1], presence=wanted))
                device.written = None if wanted == "offline" else wanted
                device.written_at = now
            if self._gone(device):
                del self._devices[key]
        return sources

    def _due_activities(self) -> dict[UserId, int]:
        now = self._clock.monotonic()
        due: dict[UserId, int] = {}
        for user_id in list(self._active):
            activity = self._activities.get(user_id)
            if activity is None or activity.noted_ts is None:
                self._active.discard(user_id)
            elif activity.written_at is None or now - activity.written_at >= self._activity_seconds:
                due[user_id] = activity.noted_ts
                activity.noted_ts, activity.written_at = None, now
                self._active.discard(user_id)
                if len(due) >= BATCH_MAX:
                    break
        return due

    def _forgettable(self, activity: _Activity) -> bool:
        return (
            activity.noted_ts is None
            and activity.written_at is not None
            and self._clock.monotonic() - activity.written_at > FORGET_SECONDS
        )
