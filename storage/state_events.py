"""Loading the events of rooms' states, as many of them as are wanted, and what has changed in them."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import orjson

from homeserver.core.filters import RoomEventFilter
from homeserver.core.ids import RoomId, UserId
from storage.database import Connection
from storage.events import StoredEvent, stored_event

SELECT_STATE_EVENTS: Final = """
    SELECT * FROM stored_events e
    WHERE e.event_nid = ANY ($1::bigint[])
        AND ($2::text[] IS NULL OR e.type LIKE ANY ($2))
        AND NOT e.type LIKE ANY ($3::text[])
        AND ($4::text[] IS NULL OR e.sender = ANY ($4))
        AND NOT e.sender = ANY ($5::text[])
        AND ($6::text[] IS NULL OR e.type <> 'm.room.member' OR e.state_key = ANY ($6))
    ORDER BY e.event_nid
"""


async def list_state_events(
    conn: Connection,
    event_nids: Collection[int],
    *,
    event_filter: RoomEventFilter,
    members: Collection[UserId] | None = None,
) -> list[StoredEvent]:
    """Those state events that a filter lets through, in the order of their arrival.

    Of the filter, only types and senders are looked at.

    Args:
        event_nids: the events to choose from.
        event_filter: which events are wanted.
        members: of the member events only those of these users are wanted; None for all.
    """
    if not event_nids:
        return []
    rows = await conn.fetch(
        SELECT_STATE_EVENTS,
        list(event_nids),
        event_filter.types_like,
        event_filter.not_types_like,
        event_filter.senders,
        event_filter.not_senders,
        None if members is None else list(members),
    )
    return [stored_event(row) for row in rows]


@dataclass(frozen=True, slots=True)
class StateText:
    """A state event, as far as who shows the whole state of a room needs to know.

    Attributes:
        membership: what a member event says; None for other events.
        client_json: the event as clients see it. Its last member is `unsigned`.
    """

    membership: object
    is_member: bool
    origin_server_ts: int
    client_json: str


SELECT_STATE_TEXTS: Final = """
    SELECT type = 'm.room.member' AS is_member, origin_server_ts, client_json
    FROM events
    WHERE event_nid = ANY ($1::bigint[])
    ORDER BY event_nid
"""


async def list_state_texts(conn: Connection, event_nids: Collection[int]) -> list[StateText]:
    """State events by their numbers, in the order of their arrival; unknown ones are absent."""
    return [
        StateText(
            membership=orjson.loads(client_json)["content"].get("membership") if is_member else None,
            is_member=is_member,
            origin_server_ts=origin_server_ts,
            client_json=client_json,
        )
        for is_member, origin_server_ts, client_json in await conn.fetch(SELECT_STATE_TEXTS, list(event_nids))
    ]


SELECT_JOINED_MEMBERS: Final = """
    SELECT m.user_id, e.client_json FROM memberships m JOIN events e USING (event_nid)
    WHERE m.room_nid = $1 AND m.membership = 'join'
    ORDER BY m.event_nid
"""


async def list_joined_members(conn: Connection, room_nid: int) -> dict[UserId, str]:
    """The users who are joined to a room, each with its member event as JSON text."""
    return {UserId(row["user_id"]): row["client_json"] for row in await conn.fetch(SELECT_JOINED_MEMBERS, room_nid)}


SELECT_IS_APPSERVICE_JOINED: Final = """
    SELECT EXISTS (
        SELECT FROM users u JOIN memberships m USING (user_id)
        WHERE u.appservice_id = $1 AND m.room_nid = $2 AND m.membership = 'join'
    )
"""


async def is_appservice_joined(conn: Connection, appservice_id: str, room_nid: int) -> bool:
    """Whether any user of an application service is joined to a room."""
    return bool(await conn.fetchval(SELECT_IS_APPSERVICE_JOINED, appservice_id, room_nid))


@dataclass(frozen=True, slots=True)
class StateChange:
    """A change of a room's state."""

    room_id: RoomId
    type: str
    position: int


SELECT_STATE_CHANGES: Final = """
    SELECT r.room_id, e.type, e.position FROM events e JOIN rooms r USING (room_nid)
    WHERE e.position >= $1 AND e.position < $2 AND e.state_key = '' AND e.type = ANY ($3::text[])
    ORDER BY e.position
    LIMIT $4
"""


async def list_state_changes(
    conn: Connection, types: Collection[str], *, since: int, upto: int, limit: int
) -> list[StateChange]:
    """The state events with an empty state key of some types that came from `since` on and before `upto`, the first."""
    rows = await conn.fetch(SELECT_STATE_CHANGES, since, upto, list(types), limit)
    return [StateChange(room_id=RoomId(row["room_id"]), type=row["type"], position=row["position"]) for row in rows]
