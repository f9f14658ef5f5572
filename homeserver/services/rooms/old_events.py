"""Events in the forms that the oldest endpoints serve: one flat list in which rooms and everything else are mixed.

https://spec.matrix.org/v1.19/client-server-api/#room-previews
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from homeserver.core.ids import RoomId
from storage.receipts import ReceiptRow

# What once stood at the top level of events, and stands in `unsigned` today.
_MOVED: Final = ("age", "prev_content", "redacted_because", "replaces_state")


def old_room_event(rendered: Any) -> dict[str, Any]:
    """A rendered event of a room, with the members that old clients expect beside the present ones."""
    event = orjson.loads(orjson.dumps(rendered))
    unsigned = event.get("unsigned", {})
    moved = {name: unsigned[name] for name in _MOVED if name in unsigned}
    return {**event, "user_id": event["sender"], **moved}


def old_presence_event(event: Mapping[str, Any]) -> dict[str, Any]:
    """An `m.presence` event that names its user in the content too."""
    return {**event, "content": {**event["content"], "user_id": event["sender"]}}


def receipt_events(rows: Sequence[ReceiptRow], room_ids: Mapping[int, RoomId]) -> list[dict[str, Any]]:
    """Receipts as `m.receipt` events; those for different threads of a room in different ones."""
    contents: dict[tuple[int, str | None], dict[str, dict[str, dict[str, Any]]]] = {}
    for row in rows:
        receipt: dict[str, Any] = {"ts": row.receipt_ts}
        if row.thread_id is not None:
            receipt["thread_id"] = row.thread_id
        users = contents.setdefault((row.room_nid, row.thread_id), {}).setdefault(str(row.event_id), {})
        users.setdefault(row.receipt_type, {})[str(row.user_id)] = receipt
    return [
        {"type": "m.receipt", "room_id": room_ids[room_nid], "content": content}
        for (room_nid, _), content in contents.items()
    ]
