"""Which events name which media; triggers write it with the events (migration 0021)."""

from collections.abc import Sequence
from typing import Final

from homeserver.core.ids import MxcUri, RoomId, ServerName
from storage.database import Connection

SELECT_MEDIA_OF_ROOM: Final = """
    SELECT DISTINCT m.server_name, m.media_id
    FROM rooms r JOIN media_events m USING (room_nid) JOIN events e USING (event_nid)
    WHERE r.room_id = $1 AND m.redacted_ts IS NULL AND e.type <> 'm.room.member'
        AND (m.server_name, m.media_id) > ($2, $3)
    ORDER BY m.server_name, m.media_id LIMIT $4
"""


async def list_media_of_room(
    conn: Connection, room_id: RoomId, *, after: tuple[str, str], limit: int
) -> Sequence[MxcUri]:
    """The media that events of a room show, those of members excepted, a page at a time in the order of their names."""
    rows = await conn.fetch(SELECT_MEDIA_OF_ROOM, room_id, *after, limit)
    return [MxcUri(f"mxc://{row['server_name']}/{row['media_id']}") for row in rows]


SELECT_CONTENTS_OF_MEDIA: Final = """
    SELECT l.sha256 FROM unnest($1::text[], $2::text[]) AS m (server_name, media_id)
    JOIN local_media l ON l.media_id = m.media_id
    WHERE m.server_name = $3 AND l.sha256 IS NOT NULL AND NOT l.protected
    UNION
    SELECT r.sha256 FROM unnest($1::text[], $2::text[]) AS m (server_name, media_id)
    JOIN remote_media r USING (server_name, media_id)
"""


async def contents_of_media(conn: Connection, uris: Sequence[MxcUri], *, own_server: ServerName) -> Sequence[bytes]:
    """The files of media, as far as they are here, without those that are protected."""
    servers, media_ids = [uri.server_name for uri in uris], [uri.media_id for uri in uris]
    return [row["sha256"] for row in await conn.fetch(SELECT_CONTENTS_OF_MEDIA, servers, media_ids, own_server)]


DELETE_MEDIA_OF_ROOM: Final = """
    DELETE FROM local_media WHERE media_id IN (
        SELECT l.media_id FROM local_media l
        WHERE NOT l.protected AND l.media_id IN (
                SELECT m.media_id FROM rooms r JOIN media_events m USING (room_nid) JOIN events e USING (event_nid)
                WHERE r.room_id = $1 AND m.server_name = $2 AND e.type <> 'm.room.member'
            )
            AND NOT EXISTS (
                SELECT FROM media_events m JOIN rooms r USING (room_nid)
                WHERE m.media_id = l.media_id AND m.server_name = $2 AND m.redacted_ts IS NULL AND r.room_id <> $1
            )
            AND NOT EXISTS (
                SELECT FROM profile_fields p
                WHERE p.name = 'avatar_url' AND p.value = to_json('mxc://' || $2 || '/' || l.media_id)::text
            )
        LIMIT $3
    )
    RETURNING media_id
"""


async def delete_media_of_room(
    conn: Connection, room_id: RoomId, *, own_server: ServerName, limit: int
) -> Sequence[str]:
    """Forgets media of this server that events of a room name, and neither other rooms nor profiles; returns their ids.

    Protected ones stay.
    """
    return [row["media_id"] for row in await conn.fetch(DELETE_MEDIA_OF_ROOM, room_id, own_server, limit)]


# What a stranger shows in an event and redacts does not go with it: only who has uploaded something has it removed.
# Account data is looked at for sets of stickers, which the events that show them do not name.
DELETE_MEDIA_OF_REDACTED_EVENTS: Final = """
    WITH settled AS (
        UPDATE media_events SET settled = true WHERE ctid = ANY (ARRAY (
            SELECT ctid FROM media_events WHERE redacted_ts < $1 AND NOT settled
            ORDER BY redacted_ts LIMIT $3 FOR UPDATE SKIP LOCKED
        ))
        RETURNING server_name, media_id
    ), unused AS (
        SELECT DISTINCT server_name, media_id FROM settled s
        WHERE NOT EXISTS (
            SELECT FROM media_events m
            WHERE m.media_id = s.media_id AND m.server_name = s.server_name
                AND (m.redacted_ts IS NULL OR m.redacted_ts >= $1)
        )
    ), local AS (
        DELETE FROM local_media l USING unused u
        WHERE u.server_name = $2 AND l.media_id = u.media_id AND NOT l.protected
            AND EXISTS (
                SELECT FROM media_events m JOIN events e USING (event_nid)
                WHERE m.media_id = l.media_id AND m.server_name = $2 AND e.sender = l.user_id
            )
            AND NOT EXISTS (
                SELECT FROM profile_fields p
                WHERE p.name = 'avatar_url' AND p.value = to_json('mxc://' || $2 || '/' || l.media_id)::text
            )
            AND NOT EXISTS (
                SELECT FROM account_data a
                WHERE a.user_id = l.user_id AND strpos(a.content, 'mxc://' || $2 || '/' || l.media_id) > 0
            )
        RETURNING 1
    ), remote AS (
        DELETE FROM remote_media r USING unused u
        WHERE r.server_name = u.server_name AND r.media_id = u.media_id
            AND EXISTS (
                SELECT FROM media_events m JOIN events e USING (event_nid)
                WHERE m.media_id = r.media_id AND m.server_name = r.server_name
                    AND e.sender LIKE '%:' || r.server_name
            )
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM settled) AS decided,
        (SELECT count(*) FROM local) + (SELECT count(*) FROM remote) AS gone
"""


async def delete_media_of_redacted_events(
    conn: Connection, *, redacted_before_ts: int, own_server: ServerName, limit: int
) -> tuple[int, int]:
    """Decides about media of events that were redacted before a time, and forgets those that nothing else shows.

    Media of this server go if an event of the user who has uploaded them showed them, and no profile and no account
    data does; copies of other servers' media, if an event of that server did.

    Returns:
        how many were decided about, and how many are forgotten.
    """
    row = await conn.fetchrow(DELETE_MEDIA_OF_REDACTED_EVENTS, redacted_before_ts, own_server, limit)
    assert row is not None, "it counts"
    return row["decided"], row["gone"]
