"""Redactions that came before what they redact. `append_events` and `store_outliers` add and remove them."""

from collections.abc import Collection
from typing import Final

from homeserver.core.ids import EventId
from storage.database import Connection

SELECT_PENDING_REDACTIONS: Final = """
    SELECT redacts, redaction_nid FROM pending_redactions
    WHERE room_nid = $1 AND redacts = ANY ($2::text[])
    ORDER BY redaction_nid
"""


async def list_pending_redactions(
    conn: Connection, room_nid: int, event_ids: Collection[EventId]
) -> list[tuple[EventId, int]]:
    """The redactions that wait for some events of a room: each event with a redaction, the first to come first."""
    rows = await conn.fetch(SELECT_PENDING_REDACTIONS, room_nid, list(event_ids))
    return [(EventId(row["redacts"]), row["redaction_nid"]) for row in rows]
