"""Events of other servers that this one passes on to the servers in their room: memberships handed in here."""

from typing import Final

from storage.database import Connection

INSERT_RELAYED_EVENT: Final = "INSERT INTO relayed_events (event_nid) VALUES ($1) ON CONFLICT DO NOTHING"


async def insert_relayed_event(conn: Connection, event_nid: int) -> None:
    """Notes that an event is to be passed on."""
    await conn.execute(INSERT_RELAYED_EVENT, event_nid)


DELETE_OLD_RELAYED_EVENTS: Final = """
    WITH old AS (
        SELECT event_nid FROM relayed_events WHERE added_at < now() - interval '7 days' ORDER BY position LIMIT $1
    ), deleted AS (
        DELETE FROM relayed_events r USING old WHERE r.event_nid = old.event_nid
    )
    SELECT count(*) FROM old
"""


async def delete_old_relayed_events(conn: Connection, *, limit: int) -> int:
    """Forgets some events that were added more than 7 days ago; returns how many."""
    return int(await conn.fetchval(DELETE_OLD_RELAYED_EVENTS, limit))
