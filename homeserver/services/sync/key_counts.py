"""How many one-time keys a device has left, told with every response so that its client can upload more.

What was read is kept in memory while nothing of the user's own has changed: a poll that finds nothing costs no reading.

https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from homeserver.core.ids import DeviceId, UserId
from homeserver.core.requester import Requester
from homeserver.services.sync.recent import RecentChanges
from homeserver.services.sync.request import SyncWindow
from storage.bounded_cache import BoundedCache
from storage.database import Connection
from storage.one_time_keys import KeyCounts, get_key_counts

DEVICES_REMEMBERED_MAX: Final = 100_000
# Clients look for this one even when there is none left.
_USUAL_ALGORITHM: Final = "signed_curve25519"


@dataclass(frozen=True, slots=True)
class ToldCounts:
    """The members of a response; `is_news` says that they have changed since the last one."""

    body: Mapping[str, Any]
    is_news: bool


class KeyCountsOfDevices:
    """Reads the counts for the devices that sync with this process."""

    def __init__(self, *, recent: RecentChanges) -> None:
        self._recent = recent
        # What was read, and just below which position.
        self._read: BoundedCache[tuple[UserId, DeviceId], tuple[int, Mapping[str, Any]]] = BoundedCache(
            "key_counts", weight_max=DEVICES_REMEMBERED_MAX
        )

    def find_remembered(self, requester: Requester) -> Mapping[str, Any] | None:
        """The members of a response, if memory has them as they are. The recent changes must be known up to now."""
        if requester.device_id is None:
            return {}
        remembered = self._read.get((requester.user_id, requester.device_id))
        if remembered is None or self._recent.user_changed(requester.user_id, since=remembered[0]):
            return None
        return remembered[1]

    async def read(self, conn: Connection, requester: Requester, window: SyncWindow) -> ToldCounts:
        """The members of the response for a window."""
        if requester.device_id is None:
            return ToldCounts({}, is_news=False)
        if not window.is_initial and not self._recent.user_changed(requester.user_id, since=window.since):
            remembered = self.find_remembered(requester)
            if remembered is not None:
                return ToldCounts(remembered, is_news=False)
        counts = await get_key_counts(conn, user_id=requester.user_id, device_id=requester.device_id)
        body = _body(counts)
        self._read.put((requester.user_id, requester.device_id), (window.upto, body))
        is_news = counts.changed_at is not None and window.since <= counts.changed_at < window.upto
        return ToldCounts(body, is_news=is_news)


def _body(counts: KeyCounts) -> Mapping[str, Any]:
    """Nothing for a device that never had any keys: its client does not encrypt."""
    if not counts.has_identity and counts.changed_at is None:
        return {}
    return {
        "device_one_time_keys_count": {_USUAL_ALGORITHM: 0, **counts.one_time_keys},
        "device_unused_fallback_key_types": list(counts.unused_fallback_algorithms),
    }
