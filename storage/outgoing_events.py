"""Events that this server has to send to others, as they come in the stream.

https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from homeserver.core.errors import MatrixError
from homeserver.core.ids import ServerName, UserId
from homeserver.core.pdu import Pdu
from storage.database import Connection
from storage.events import stored_pdu

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingEvent:
    """An event that this server has to send.

    Attributes:
        position: where it was found in the stream.
        state_id: the snapshot of the state before it; None if that is not known.
        member: whose membership it sets; None for other events.
        is_relayed: another server has made it and handed it in here.
        partial_servers: the servers in a room whose members are not all known in that state, as they were told.
    """

    event_nid: int
    room_nid: int
    position: int
    state_id: int | None
    sender: UserId
    member: UserId | None
    is_relayed: bool
    partial_servers: frozenset[ServerName] = frozenset()


# A transaction is never cut in two, so all events of the position at which the limit falls are given.
SELECT_OUTGOING: Final = """
    WITH outgoing AS MATERIALIZED (
        SELECT event_nid, position, false AS is_relayed FROM events
        WHERE position >= $1 AND position < $2 AND substr(sender, strpos(sender, ':') + 1) = $3
        UNION ALL
        SELECT event_nid, position, true FROM relayed_events WHERE position >= $1 AND position < $2
    ), cut AS (
        SELECT position FROM outgoing ORDER BY position OFFSET $4 - 1 LIMIT 1
    )
    SELECT o.event_nid, o.position, o.is_relayed, e.room_nid, e.state_id, e.sender,
        CASE WHEN e.type = 'm.room.member' AND e.state_key LIKE '@%:%' THEN e.state_key END AS member,
        -- In the same statement as the state, which another one may complete at any moment.
        (SELECT p.servers FROM partial_rooms p WHERE p.room_nid = e.room_nid) AS partial_servers,
        (SELECT position FROM cut) AS cut
    FROM outgoing o JOIN events e USING (event_nid)
    WHERE o.position <= coalesce((SELECT position FROM cut), $2) AND e.rejected IS NULL AND NOT e.soft_failed
    ORDER BY o.event_nid
"""


async def list_outgoing(
    conn: Connection, server_name: ServerName, *, since: int, upto: int, limit: int
) -> tuple[list[OutgoingEvent], int]:
    """The events to send from `since` on and before `upto`, about so many, and up to which position these are all."""
    rows = await conn.fetch(SELECT_OUTGOING, since, upto, server_name, limit)
    events = [
        OutgoingEvent(
            event_nid=row["event_nid"],
            room_nid=row["room_nid"],
            position=row["position"],
            state_id=row["state_id"],
            sender=UserId(row["sender"]),
            member=None if row["member"] is None else UserId(row["member"]),
            is_relayed=row["is_relayed"],
            partial_servers=frozenset(map(ServerName, row["partial_servers"] or ())),
        )
        for row in rows
    ]
    cut = rows[0]["cut"] if rows else None
    return events, upto if cut is None else min(cut + 1, upto)


SELECT_CHANGED_PDUS: Final = """
    SELECT e.event_nid, e.revision, known.event_nid IS NOT NULL AS is_known,
        CASE WHEN known.event_nid IS NULL THEN e.event_id END AS event_id,
        CASE WHEN known.event_nid IS NULL THEN e.client_json END AS client_json,
        CASE WHEN known.event_nid IS NULL THEN e.federation_json END AS federation_json,
        r.room_id, r.room_version
    FROM events e JOIN rooms r USING (room_nid)
    LEFT JOIN unnest($2::bigint[], $3::integer[]) AS known (event_nid, revision)
        ON known.event_nid = e.event_nid AND known.revision = e.revision
    WHERE e.event_nid = ANY ($1::bigint[])
"""


async def list_changed_pdus(conn: Connection, known: Mapping[int, int | None]) -> dict[int, tuple[int, Pdu | None]]:
    """Events as servers exchange them, with their revisions; without the event where the known revision still holds.

    Args:
        conn: a connection.
        known: the events that are wanted, with the revision that is known of each; None for none. Those that are not
            stored (any more), or that cannot be read, are absent from the answer.
    """
    nids = [event_nid for event_nid, revision in known.items() if revision is not None]
    found: dict[int, tuple[int, Pdu | None]] = {}
    for row in await conn.fetch(SELECT_CHANGED_PDUS, list(known), nids, [known[event_nid] for event_nid in nids]):
        try:
            found[row["event_nid"]] = (row["revision"], None if row["is_known"] else stored_pdu(row))
        except (MatrixError, ValueError, LookupError, TypeError):
            # One event that is stored wrongly must not hold back the others.
            logger.exception("The event with the number %s cannot be read", row["event_nid"])
    return found
