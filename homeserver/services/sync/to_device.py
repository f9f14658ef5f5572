"""Messages to the device that syncs: told until the next sync confirms them, a bounded number at a time.

https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from homeserver.core.requester import Requester
from homeserver.services.sync.request import SyncWindow
from storage.database import Connection
from storage.device_streams import delete_to_device, list_to_device

MESSAGES_MAX: Final = 100


async def read_to_device(
    conn: Connection, requester: Requester, window: SyncWindow
) -> tuple[Sequence[Any], SyncWindow]:
    """The messages for a response, and the window that it can cover.

    If more wait than one response may hold, the window ends before the first that is left out, for all sections. What
    one transaction has sent is not divided.
    """
    if requester.device_id is None:
        return (), window
    found = await list_to_device(
        conn,
        user_id=requester.user_id,
        device_id=requester.device_id,
        upto=window.upto,
        limit=MESSAGES_MAX + 1,
    )
    if len(found) > MESSAGES_MAX:
        cut = found[MESSAGES_MAX].position
        if cut == found[0].position:
            cut += 1
            found = await list_to_device(
                conn, user_id=requester.user_id, device_id=requester.device_id, upto=cut, limit=2**31 - 1
            )
        window = replace(window, upto=cut)
        found = [message for message in found if message.position < cut]
    return [orjson.Fragment(message.message) for message in found], window


async def confirm_to_device(conn: Connection, requester: Requester, since: int) -> None:
    """Removes the messages that the device has got: those below the token that it comes with."""
    if requester.device_id is not None:
        await delete_to_device(conn, user_id=requester.user_id, device_id=requester.device_id, upto=since)
