"""`GET /health`: 200 when this worker can do its work, 503 when it cannot."""

import asyncio
from typing import Final

from homeserver.core.errors import MatrixError
from homeserver.web.endpoint import Access, Request, Response, Section
from storage.database import Database
from storage.errors import DatabaseError
from storage.migrate import load_migrations, schema_version

HEALTH_SECONDS_MAX: Final = 3.0
NEWEST_VERSION: Final = len(load_migrations())


async def find_problem(db: Database) -> str | None:
    """Why this worker cannot do its work; None if the database answers, and its schema is the one known here."""
    try:
        async with asyncio.timeout(HEALTH_SECONDS_MAX), db.connection() as conn:
            version = await schema_version(conn)
    except (DatabaseError, MatrixError, TimeoutError):
        return "The database does not answer"
    return "The database is not migrated" if version < NEWEST_VERSION else None


async def is_healthy(db: Database) -> bool:
    """Whether this worker can do its work."""
    return await find_problem(db) is None


def section(db: Database) -> Section:
    """The endpoint, which asks the database each time."""
    s = Section("Health")

    @s.endpoint("GET", "/health", access=Access.PUBLIC)
    async def health(_: Request) -> Response:
        """Says whether the server can serve: the database answers, and its schema is the one this server knows."""
        problem = await find_problem(db)
        if problem is not None:
            return Response({"status": "unavailable", "reason": problem}, status=503)
        return Response({"status": "ok"})

    return s
