"""Which events relate to which by `m.relates_to`. A redacted event relates to nothing any more."""

from typing import Final

from homeserver.core.ids import EventId, UserId
from storage.database import Connection

SELECT_HAS_ANNOTATED: Final = """
    SELECT EXISTS (
        SELECT FROM relations r JOIN events e USING (event_nid)
        WHERE r.relates_to = $1 AND r.rel_type = 'm.annotation' AND r.key = $2 AND e.sender = $3 AND e.type = $4
            AND e.rejected IS NULL AND NOT e.soft_failed
    )
"""


async def has_annotated(conn: Connection, event_id: EventId, *, key: str, sender: UserId, event_type: str) -> bool:
    """Whether a user has annotated an event with this key already, by an event of this type."""
    return bool(await conn.fetchval(SELECT_HAS_ANNOTATED, event_id, key, sender, event_type))
