"""Messages to the device that syncs: told until the next sync confirms them, a bounded number at a time.

https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from homeserver.core.ids import DeviceId, UserId
from homeserver.core.requester import Requester
from homeserver.services.sync.recent import RecentChanges
from homeserver.services.sync.request import SyncWindow
from storage.bounded_cache import BoundedCache
from storage.database import Connection
from storage.to_device import delete_to_device, list_to_device

MESSAGES_MAX: Final = 100
DEVICES_REMEMBERED_MAX: Final = 100_000


class ToDeviceMessages:
    """Reads and removes the messages of the devices that sync with this process."""

    def __init__(self, *, recent: RecentChanges) -> None:
        self._recent = recent
        # Below which position there is nothing left for a device.
        self._cleared: BoundedCache[tuple[UserId, DeviceId], int] = BoundedCache(
            "to_device_cleared", weight_max=DEVICES_REMEMBERED_MAX
        )

    def is_confirmed(self, requester: Requester, since: int) -> bool:
        """Whether it is known that all has been removed which a device confirms by coming with this token.

        The recent changes must be known up to the token.
        """
        if requester.device_id is None:
            return True
        cleared = self._cleared.get((requester.user_id, requester.device_id))
        return cleared is not None and (
            cleared >= since or not self._recent.user_changed(requester.user_id, since=cleared)
        )

    async def confirm(self, conn: Connection, requester: Requester, since: int) -> None:
        """Removes what a device has got: the messages below the token that it comes with."""
        if requester.device_id is not None and not self.is_confirmed(requester, since):
            await delete_to_device(conn, user_id=requester.user_id, device_id=requester.device_id, upto=since)
            self._cleared.put((requester.user_id, requester.device_id), since)

    async def read(
        self, conn: Connection, requester: Requester, window: SyncWindow
    ) -> tuple[Sequence[Any], SyncWindow]:
        """The messages for a response, and the window that it can cover.

        If more wait than one response may hold, the window ends before the first that is left out, for all sections.
        What one transaction has sent is not divided.
        """
        user_id, device_id = requester.user_id, requester.device_id
        if device_id is None or not (window.is_initial or self._recent.user_changed(user_id, since=window.since)):
            return (), window
        found = await list_to_device(
            conn, user_id=user_id, device_id=device_id, upto=window.upto, limit=MESSAGES_MAX + 1
        )
        if len(found) > MESSAGES_MAX:
            cut = found[MESSAGES_MAX].position
            if cut == found[0].position:
                cut += 1
                found = await list_to_device(conn, user_id=user_id, device_id=device_id, upto=cut, limit=2**31 - 1)
            window = replace(window, upto=cut)
            found = [message for message in found if message.position < cut]
        return [orjson.Fragment(message.message) for message in found], window
