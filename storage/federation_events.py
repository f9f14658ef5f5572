"""Events with all that their federation form is put together from."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.core.room_versions import RoomVersion, room_version_named
from storage.database import Connection


@dataclass(frozen=True, slots=True)
class FederationRow:
    """An event as it is stored: what clients see of it, and the rest of what servers exchange.

    Attributes:
        client_json: the client form, redacted if the event was; canonical JSON text.
        federation_json: the remainder, as `federation_remainder` tells it; canonical JSON text.
    """

    event_nid: int
    event_id: EventId
    room_id: RoomId
    room_version: RoomVersion
    origin_server_ts: int
    type: str
    state_key: str | None
    sender: UserId
    client_json: str
    federation_json: str


SELECT_FEDERATION_ROWS: Final = """
    SELECT e.event_nid, e.event_id, r.room_id, r.room_version, e.origin_server_ts, e.type, e.state_key, e.sender,
        e.client_json, e.federation_json
    FROM events e JOIN rooms r USING (room_nid)
    WHERE e.event_nid = ANY ($1::bigint[])
"""


async def list_federation_rows(conn: Connection, event_nids: Collection[int]) -> list[FederationRow]:
    """Events by their numbers, in no order; unknown ones are absent."""
    if not event_nids:
        return []
    return [
        FederationRow(
            event_nid=row["event_nid"],
            event_id=EventId(row["event_id"]),
            room_id=RoomId(row["room_id"]),
            room_version=room_version_named(row["room_version"]),
            origin_server_ts=row["origin_server_ts"],
            type=row["type"],
            state_key=row["state_key"],
            sender=UserId(row["sender"]),
            client_json=row["client_json"],
            federation_json=row["federation_json"],
        )
        for row in await conn.fetch(SELECT_FEDERATION_ROWS, list(event_nids))
    ]
