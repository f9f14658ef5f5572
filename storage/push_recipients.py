"""Whom the events of a room concern, as far as push rules go."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from homeserver.core.ids import UserId
from storage.database import Connection


@dataclass(frozen=True, slots=True)
class PushAudience:
    """A room at one version of its state.

    Attributes:
        member_count: how many users are joined.
        deviating: the joined users of this server who have changed their push rules.
    """

    state_version: int
    member_count: int
    deviating: frozenset[UserId]


SELECT_PUSH_AUDIENCE: Final = """
    SELECT r.state_version, s.joined_members, ARRAY (
        SELECT m.user_id FROM push_rules p JOIN memberships m USING (user_id)
        WHERE m.room_nid = $1 AND m.membership = 'join' AND NOT p.is_default
    ) AS deviating
    FROM rooms r JOIN room_summaries s USING (room_nid)
    WHERE r.room_nid = $1
"""


async def find_push_audience(conn: Connection, room_nid: int) -> PushAudience | None:
    """Whom events in a room concern now; None if there is no such room."""
    row = await conn.fetchrow(SELECT_PUSH_AUDIENCE, room_nid)
    if row is None:
        return None
    return PushAudience(row["state_version"], row["joined_members"], frozenset(map(UserId, row["deviating"])))


SELECT_JOINED_AMONG: Final = """
    SELECT user_id FROM memberships WHERE room_nid = $1 AND membership = 'join' AND user_id = ANY ($2::text[])
"""


async def list_joined_among(conn: Connection, room_nid: int, user_ids: Collection[str]) -> frozenset[UserId]:
    """Those of some users who are joined to a room."""
    rows = await conn.fetch(SELECT_JOINED_AMONG, room_nid, list(user_ids))
    return frozenset(UserId(row["user_id"]) for row in rows)


SELECT_DISPLAY_NAMES: Final = """
    SELECT m.user_id, e.client_json FROM memberships m JOIN events e USING (event_nid)
    WHERE m.room_nid = $1 AND m.membership = 'join' AND m.user_id = ANY ($2::text[])
"""


async def list_display_names(conn: Connection, room_nid: int, user_ids: Collection[str]) -> Mapping[UserId, str]:
    """The display names in a room of those of some users who are joined to it and have one."""
    names = {}
    for row in await conn.fetch(SELECT_DISPLAY_NAMES, room_nid, list(user_ids)):
        name = orjson.loads(row["client_json"])["content"].get("displayname")
        if isinstance(name, str):
            names[UserId(row["user_id"])] = name
    return names
