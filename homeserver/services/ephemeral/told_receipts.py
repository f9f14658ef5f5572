"""What another server tells of the receipts of its users, read with suspicion.

https://spec.matrix.org/v1.19/server-server-api/#receipts
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from homeserver.core.errors import InvalidParam
from homeserver.core.ids import EventId, RoomId, ServerName, UserId

RECEIPTS_MAX: Final = 10_000
EVENT_IDS_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class ToldReceipt:
    """A public receipt as the user's server tells it, on one or more events (at least one)."""

    room_id: RoomId
    user_id: UserId
    thread_id: str | None
    event_ids: tuple[EventId, ...]
    receipt_ts: int


def parse_told_receipts(content: Mapping[str, Any], *, origin: ServerName, now_ms: int) -> list[ToldReceipt]:
    """The well-formed receipts of an `m.receipt` EDU that speak of the origin's own users."""
    told = []
    for room, by_type in content.items():
        of_users = by_type.get("m.read") if isinstance(by_type, dict) else None
        for user, receipt in of_users.items() if isinstance(of_users, dict) else ():
            try:
                parsed = _parse(room, user, receipt, now_ms)
            except InvalidParam:
                continue
            if parsed.user_id.server_name == origin:
                told.append(parsed)
            if len(told) >= RECEIPTS_MAX:
                return told
    return told


def _parse(room: str, user: str, receipt: object, now_ms: int) -> ToldReceipt:
    """Reads one receipt.

    Raises:
        InvalidParam: something about it is wrong.
    """
    data = receipt.get("data") if isinstance(receipt, dict) else None
    event_ids = receipt.get("event_ids") if isinstance(receipt, dict) else None
    if not isinstance(data, dict) or not isinstance(event_ids, list) or not event_ids:
        raise InvalidParam("A receipt has data and event_ids")
    ts = data.get("ts")
    return ToldReceipt(
        room_id=RoomId.parse(room),
        user_id=UserId.parse(user),
        thread_id=_thread_id(data.get("thread_id")),
        event_ids=tuple(EventId.parse(event_id) for event_id in event_ids[:EVENT_IDS_MAX]),
        receipt_ts=min(ts, now_ms) if type(ts) is int and ts >= 0 else now_ms,
    )


def _thread_id(value: object) -> str | None:
    return None if value is None else "main" if value == "main" else EventId.parse(value)
