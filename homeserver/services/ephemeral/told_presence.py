"""What another server tells of the presence of its users, read with suspicion.

https://spec.matrix.org/v1.19/server-server-api/#presence
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from homeserver.core.errors import InvalidParam
from homeserver.core.ids import ServerName, UserId
from homeserver.core.text import is_storable
from storage.presence import PresenceSource

ENTRIES_MAX: Final = 1000
STATUS_MSG_BYTES_MAX: Final = 2048


@dataclass(frozen=True, slots=True)
class ToldPresence:
    """One user's presence as its server tells it; `last_active_ts` is None if that is not told."""

    source: PresenceSource
    last_active_ts: int | None
    status_msg: str | None


def parse_told_presence(content: Mapping[str, Any], *, origin: ServerName, now_ms: int) -> dict[UserId, ToldPresence]:
    """The well-formed entries of an `m.presence` EDU that speak of the origin's own users; the last of each user."""
    push = content.get("push")
    if not isinstance(push, list):
        return {}
    told = {}
    for entry in push[:ENTRIES_MAX]:
        parsed = _parse_entry(entry, now_ms)
        if parsed is not None and parsed.source.user_id.server_name == origin:
            told[parsed.source.user_id] = parsed
    return told


def _parse_entry(entry: object, now_ms: int) -> ToldPresence | None:
    if not isinstance(entry, dict) or entry.get("presence") not in ("online", "unavailable", "offline"):
        return None
    try:
        user_id = UserId.parse(entry.get("user_id"))
    except InvalidParam:
        return None
    ago = entry.get("last_active_ago")
    status_msg = entry.get("status_msg")
    if not (isinstance(status_msg, str) and status_msg and is_storable(status_msg)):
        status_msg = None
    return ToldPresence(
        source=PresenceSource(
            user_id=user_id,
            device_id="",
            presence=entry["presence"],
            currently_active=entry.get("currently_active") is True,
        ),
        last_active_ts=now_ms - ago if type(ago) is int and 0 <= ago <= now_ms else None,
        status_msg=None if status_msg is None else status_msg.encode()[:STATUS_MSG_BYTES_MAX].decode(errors="ignore"),
    )
