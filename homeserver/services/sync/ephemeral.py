"""The ephemeral events of rooms in a sync: who types, and up to where people have read.

https://spec.matrix.org/v1.19/client-server-api/#receipts
https://spec.matrix.org/v1.19/client-server-api/#typing-notifications
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from homeserver.core.ids import UserId
from homeserver.services.sync.membership import SyncedRoom
from homeserver.services.sync.recent import Changes
from homeserver.services.sync.request import SyncRequest, SyncWindow
from storage.database import Connection
from storage.receipts import ReceiptRow, list_changed_receipts
from storage.typing import typing_in

RECEIPTS_PER_ROOM_MAX: Final = 500
"""How many receipts a client that begins is told of each room; one that continues is told all that changed."""
_ALL: Final = 2**31 - 1


async def read_ephemeral(
    conn: Connection,
    request: SyncRequest,
    rooms: Sequence[SyncedRoom],
    window: SyncWindow,
    changes: Changes,
    *,
    ignored_users: Collection[UserId],
) -> Mapping[int, Sequence[Any]]:
    """The ephemeral events of joined rooms by room_nid; rooms without any are absent."""
    event_filter = request.filter.room.ephemeral
    wanted = [room for room in rooms if event_filter.allows_room(room.room_id)]
    new = [room.room_nid for room in wanted if room.is_new]
    known = [room.room_nid for room in wanted if not room.is_new]
    events: dict[int, list[Any]] = {}
    if event_filter.matches(event_type="m.typing", sender=None):
        typing = await _typing(conn, [nid for nid in known if nid in changes.typing], new, window)
        for room_nid, user_ids in typing.items():
            shown = [user_id for user_id in user_ids if user_id not in ignored_users]
            events.setdefault(room_nid, []).append({"type": "m.typing", "content": {"user_ids": shown}})
    if event_filter.matches(event_type="m.receipt", sender=None):
        moved = [nid for nid in known if nid in changes.receipts]
        contents = await _receipts(conn, request.requester.user_id, moved, new, window, ignored_users)
        for room_nid, of_room in contents.items():
            events.setdefault(room_nid, []).extend({"type": "m.receipt", "content": each} for each in of_room)
    return events


async def _typing(
    conn: Connection, known: Sequence[int], new: Sequence[int], window: SyncWindow
) -> Mapping[int, Sequence[UserId]]:
    """Who types: where that changed, and in rooms that are new to the client."""
    typing = await typing_in(conn, known, since=window.since, upto=window.upto) if known else {}
    return typing | (await typing_in(conn, new, since=0, upto=window.upto) if new else {})


async def _receipts(
    conn: Connection,
    user_id: UserId,
    known: Sequence[int],
    new: Sequence[int],
    window: SyncWindow,
    ignored_users: Collection[UserId],
) -> Mapping[int, Sequence[Mapping[str, Any]]]:
    """The contents of the receipt events: receipts by event, type and user.

    A user may have several on one event, for different threads. One content has room for one of them, so the others
    come in contents of their own.
    """
    rows: list[ReceiptRow] = []
    for room_nids, since, limit in ((known, window.since, _ALL), (new, 0, RECEIPTS_PER_ROOM_MAX)):
        if room_nids:
            rows += await list_changed_receipts(
                conn, room_nids, since=since, upto=window.upto, user_id=user_id, limit_per_room=limit
            )
    contents: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if row.user_id not in ignored_users:
            _add(contents.setdefault(row.room_nid, []), row)
    return contents


def _add(contents: list[dict[str, Any]], row: ReceiptRow) -> None:
    """Puts a receipt into the first content that has room for it."""
    receipt: dict[str, Any] = {"ts": row.receipt_ts}
    if row.thread_id is not None:
        receipt["thread_id"] = row.thread_id
    for content in contents:
        users = content.setdefault(str(row.event_id), {}).setdefault(row.receipt_type, {})
        if str(row.user_id) not in users:
            users[str(row.user_id)] = receipt
            return
    contents.append({str(row.event_id): {row.receipt_type: {str(row.user_id): receipt}}})
