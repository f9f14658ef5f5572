"""What operators ask of federation on the command line: how other servers stand, and what is wrong with one."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from federation.outbound.checkup import Checkup, Finding, Verdict
from federation.outbound.srv import DnsSrvLookup
from federation.outbound.well_known import HttpWellKnown
from federation.wire.paths import federation_path
from homeserver.config.schema import Config
from homeserver.core.clock import Clock
from homeserver.core.errors import NotFound, RemoteRefused, RemoteUnavailable
from homeserver.core.ids import EventId, ServerName
from homeserver.core.own_keys import OwnKeys
from homeserver.net.addresses import AddressPolicy
from homeserver.net.resolver import SystemLookup
from homeserver.net.tls import client_tls
from homeserver.runtime.accounts import Means
from homeserver.runtime.other_servers import connect_other_servers, http_client
from homeserver.runtime.signing_key import load_own_keys
from storage.bus.memory import MemoryBus
from storage.database import Database
from storage.destination_queues import DestinationStatus, end_pauses, list_queued_event_ids, list_statuses
from storage.migrate import migrate

EVENTS_SHOWN_MAX: Final = 20
_COLUMNS: Final = ("SERVER", "STATE", "FAILING SINCE", "NEXT TRY", "ROOMS", "EVENTS", "EDUS")
# Nobody has this name, so that a server that believes the signature says 404.
_NOBODY: Final = "heliograph-doctor-asks-for-nobody"
_UNBELIEVED: Final = frozenset((401, 403))


@dataclass(frozen=True, slots=True)
class StatusReport:
    """How servers stand at a time (milliseconds); of a single one also the ids of the first events that wait."""

    statuses: Sequence[DestinationStatus]
    now_ms: int
    waiting: Sequence[EventId] = ()

    def lines(self) -> list[str]:
        """A table for people."""
        if not self.statuses:
            return ["Nothing waits, and every server answers"]
        rows = [_COLUMNS, *(self._row(status) for status in self.statuses)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return [*table, *(f"  waits: {event_id}" for event_id in self.waiting)]

    def json(self) -> list[dict[str, Any]]:
        """The same for machines; times in milliseconds since the epoch."""
        return [{**asdict(status), "state": _state(status, self.now_ms)} for status in self.statuses]

    def _row(self, status: DestinationStatus) -> tuple[str, ...]:
        is_paused = status.retry_at_ts > self.now_ms
        return (
            status.destination,
            _state(status, self.now_ms),
            "" if status.failing_since_ts is None else _time(status.failing_since_ts),
            _time(status.retry_at_ts) if is_paused else "now" if status.rooms or status.edus else "",
            str(status.rooms),
            str(status.events),
            str(status.edus),
        )


async def federation_status(config: Config, clock: Clock, destination: ServerName | None) -> StatusReport:
    """How other servers stand, all that something waits for or that do not answer, or one.

    Raises:
        NotFound: nothing is known of that one.
        DatabaseError: the database is away, or of a newer program.
    """
    async with _database(config) as db, db.connection() as conn:
        statuses = await list_statuses(conn, destination)
        waiting: Sequence[EventId] = ()
        if destination is not None:
            if not statuses:
                raise NotFound(f"This server has never sent anything to {destination}")
            waiting = await list_queued_event_ids(conn, destination, limit=EVENTS_SHOWN_MAX)
    return StatusReport(statuses, clock.now_ms(), waiting)


async def federation_retry(config: Config, clock: Clock, destination: ServerName | None) -> Sequence[ServerName]:
    """Has a server, or all (None), tried again; the running server notices within a quarter of a minute.

    Returns those that would have been left alone until later.
    """
    async with _database(config) as db, db.connection() as conn:
        return await end_pauses(conn, destination, now_ms=clock.now_ms())


async def federation_doctor(config: Config, clock: Clock, server_name: ServerName) -> AsyncIterator[Finding]:
    """What is found out about a server and the way to it, and about this server as others see it."""
    own_keys = load_own_keys(config.data_dir)
    policy = AddressPolicy(
        blocklist=config.federation.ip_range_blocklist, allowlist=config.federation.ip_range_allowlist
    )
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(http_client(config.federation))
        lookup = SystemLookup()
        stack.push_async_callback(lookup.close)
        checkup = Checkup(
            http=http,
            lookup=lookup,
            well_known=HttpWellKnown(http=http, clock=clock),
            srv=DnsSrvLookup(),
            policy=policy,
            tls=client_tls(ca_file=config.federation.ca_file, verify=config.federation.verify_certificates),
            clock=clock,
        )
        if server_name != config.server_name:
            async for finding in checkup.examine(server_name):
                yield finding
            yield await _is_believed(config, clock, own_keys, server_name)
        async for finding in checkup.examine(config.server_name, own_keys=own_keys):
            yield finding


async def _is_believed(config: Config, clock: Clock, own_keys: OwnKeys, server_name: ServerName) -> Finding:
    """Whether the other server believes this one's signature, for which it has to reach it."""
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(_database(config))
        means = Means(config=config, db=db, bus=MemoryBus(), clock=clock)
        others = await connect_other_servers(means, own_keys=own_keys, make_http_client=http_client, stack=stack)
        if others.lines is None:
            return Finding(server_name, "signature", Verdict.PROBLEM, "Federation is turned off (federation.enabled)")
        path = federation_path("v1", "query", "profile")
        query = {"user_id": f"@{_NOBODY}:{server_name}"}
        try:
            await others.lines.client.get(server_name, path, query=query, retry_failed=True)
        except RemoteUnavailable as error:
            return Finding(server_name, "signature", Verdict.PROBLEM, error.message)
        except RemoteRefused as error:
            if error.status in _UNBELIEVED:
                text = f"It does not accept this server's requests ({error.remote_errcode}: {error.message})"
                return Finding(server_name, "signature", Verdict.PROBLEM, text)
    return Finding(server_name, "signature", Verdict.GOOD, "It believes this server's signature")


@asynccontextmanager
async def _database(config: Config) -> AsyncIterator[Database]:
    await migrate(config.database.url)
    async with Database(config.database.url, config.database) as db:
        yield db


def finding_line(finding: Finding) -> str:
    """A finding for people."""
    return f"{finding.verdict:<8} {finding.server_name}  {finding.subject}: {finding.text}"


def finding_json(finding: Finding) -> dict[str, Any]:
    """A finding for machines."""
    return asdict(finding)


def _state(status: DestinationStatus, now_ms: int) -> str:
    if status.failing_since_ts is not None:
        return "failing"
    return "paused" if status.retry_at_ts > now_ms else "answers"


def _time(ts: int) -> str:
    return datetime.fromtimestamp(ts / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
