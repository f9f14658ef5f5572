"""What users have reported: rooms, events and users.

https://spec.matrix.org/v1.19/client-server-api/#reporting-content
"""

from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import EventId, RoomId, UserId
from storage.database import Connection


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A report.

    Attributes:
        created_ts: milliseconds since the epoch.
        reporter: who reports.
        user_id: who is reported, if that is a user.
        room_id: the room that is reported, or the room of the event.
        event_id: the event that is reported.
        reason: why.
        score: from -100 (most offensive) to 0, if the client gave one.
    """

    report_id: int
    created_ts: int
    reporter: UserId
    user_id: UserId | None
    room_id: RoomId | None
    event_id: EventId | None
    reason: str | None
    score: int | None


INSERT_REPORT: Final = """
    INSERT INTO reports (created_ts, reporter, user_id, room_id, event_id, reason, score)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    RETURNING report_id
"""


async def insert_report(
    conn: Connection,
    *,
    created_ts: int,
    reporter: UserId,
    user_id: UserId | None = None,
    room_id: RoomId | None = None,
    event_id: EventId | None = None,
    reason: str | None = None,
    score: int | None = None,
) -> int:
    """Stores a report of a user, or a room, or an event of a room; returns its number."""
    return int(await conn.fetchval(INSERT_REPORT, created_ts, reporter, user_id, room_id, event_id, reason, score))


SELECT_REPORTS: Final = """
    SELECT report_id, created_ts, reporter, user_id, room_id, event_id, reason, score
    FROM reports WHERE report_id < $1
    ORDER BY report_id DESC
    LIMIT $2
"""


async def list_reports(conn: Connection, *, before: int, limit: int) -> list[ReportRow]:
    """Reports with a number below `before`, the newest first."""
    return [
        ReportRow(
            report_id=row["report_id"],
            created_ts=row["created_ts"],
            reporter=UserId(row["reporter"]),
            user_id=None if row["user_id"] is None else UserId(row["user_id"]),
            room_id=None if row["room_id"] is None else RoomId(row["room_id"]),
            event_id=None if row["event_id"] is None else EventId(row["event_id"]),
            reason=row["reason"],
            score=row["score"],
        )
        for row in await conn.fetch(SELECT_REPORTS, before, limit)
    ]
