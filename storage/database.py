"""Connections and transactions: a bounded pool, time limits on everything, and the driver's errors in our own words.

Statements live in the other modules of this package, which take a `Connection` first. An autocommit connection is for
reads and single statements; a transaction is short and holds only database calls, which `forbid_in_transaction` guards.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self, TypeAlias, cast

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from prometheus_client import Gauge, Histogram

from homeserver.config.schema import DatabaseConfig
from storage.errors import (
    ConstraintViolation,
    DatabaseError,
    DatabaseUnavailable,
    ForbiddenInTransaction,
    Serialization,
    TimeLimitReached,
    UniqueViolation,
    UnstorableValue,
)
from storage.statement_times import StatementTimes

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Row: TypeAlias = asyncpg.Record

POOL_WAITERS: Final = Gauge(
    "heliograph_database_pool_waiters", "Tasks that wait for a database connection.", multiprocess_mode="livesum"
)
POOL_WAIT_SECONDS: Final = Histogram(
    "heliograph_database_pool_wait_seconds",
    "How long tasks waited for a database connection.",
    buckets=(0.001, 0.01, 0.05, 0.1, 0.5, 1, 5),
)

_transaction_open: ContextVar[bool] = ContextVar("transaction_open", default=False)


@dataclass(slots=True)
class DatabaseUsage:
    """How much of the database one piece of work has used."""

    statements: int = 0
    seconds: float = 0.0


_usage: ContextVar[DatabaseUsage | None] = ContextVar("database_usage", default=None)


@contextmanager
def measure_database() -> Iterator[DatabaseUsage]:
    """Counts the statements that run inside, in tasks started inside too."""
    usage = DatabaseUsage()
    outer = _usage.get()
    _usage.set(usage)
    try:
        yield usage
    finally:
        _usage.set(outer)


def forbid_in_transaction(what: str) -> None:
    """States that `what` waits for something other than the database.

    Raises:
        ForbiddenInTransaction: a transaction is open here; it would hold back every reader meanwhile.
    """
    if _transaction_open.get():
        raise ForbiddenInTransaction(f"{what} inside a database transaction")


# Codes, and classes of codes (two characters), of a database that is away, starting, stopping, full or a standby.
_AWAY: Final = frozenset({"08", "53", "58", "57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04", "25006"})
# The driver tells this in words alone: a lost connection has been closed, or taken away from who uses it.
_CONNECTION_GONE: Final = re.compile("clos(ed|ing)|released back to the pool")
_TIME_LIMITS: Final = frozenset({"57014", "55P03"})
_UNSTORABLE: Final = frozenset({"22003", "22021", "22P05", "22008", "54000"})
_RETRYABLE: Final = frozenset({"40001", "40P01"})


def translate(error: Exception) -> Exception:
    """The error of this package that says what the driver's error says."""
    if isinstance(error, asyncpg.PostgresError):
        return _translate_postgres(error)
    if isinstance(error, TimeoutError):
        return TimeLimitReached("The database did not answer in time")
    if isinstance(error, OSError | asyncpg.InternalClientError):
        # The latter: the server ended the connection just as it was used.
        return DatabaseUnavailable()
    if isinstance(error, asyncpg.InterfaceError) and _CONNECTION_GONE.search(str(error)):
        return DatabaseUnavailable()
    return error


def _translate_postgres(error: asyncpg.PostgresError) -> DatabaseError:
    sqlstate = error.sqlstate or ""
    if isinstance(error.__cause__, UnicodeEncodeError | OverflowError):
        return UnstorableValue(sqlstate=sqlstate)  # found by the driver itself
    if sqlstate in _AWAY or sqlstate[:2] in _AWAY:
        return DatabaseUnavailable(sqlstate=sqlstate)
    if sqlstate in _TIME_LIMITS:
        return TimeLimitReached("The database did not answer in time", sqlstate=sqlstate)
    if sqlstate in _RETRYABLE:
        return Serialization(str(error), sqlstate=sqlstate)
    if sqlstate in _UNSTORABLE:
        return UnstorableValue(sqlstate=sqlstate)
    if sqlstate.startswith("23"):
        kind = UniqueViolation if sqlstate == "23505" else ConstraintViolation
        return kind(str(error), constraint=getattr(error, "constraint_name", None) or "", sqlstate=sqlstate)
    return DatabaseError(str(error), sqlstate=sqlstate)


_DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


@contextmanager
def translated() -> Iterator[None]:
    """Lets the driver's errors leave as those of `storage.errors`."""
    try:
        yield
    except _DRIVER_ERRORS as error:
        ours = translate(error)
        if ours is error:
            raise
        raise ours from error


class _StatementTimer:
    """Measures each statement; the driver's errors leave it translated."""

    __slots__ = ("_connection", "_started", "_statement")

    def __init__(self, connection: "_TimedConnection", statement: str) -> None:
        self._connection = connection
        self._statement = statement
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        seconds = time.perf_counter() - self._started
        self._connection.times.record(self._statement, seconds)
        usage = _usage.get()
        if usage is not None:
            usage.statements += 1
            usage.seconds += seconds
        if isinstance(error, asyncpg.InternalClientError):
            self._connection.terminate()  # nobody knows what state it is in
        if isinstance(error, _DRIVER_ERRORS):
            ours = translate(error)
            if ours is not error:
                raise ours from error


class _TimedConnection(asyncpg.Connection):
    """The driver's connection, with each statement measured and its errors translated.

    The driver makes connections by itself, of a class that it is given: so each pool has a class of its own, which
    knows the pool's times, and what its database has answered about its types, by their numbers.
    """

    __slots__ = ()
    times: ClassVar[StatementTimes]
    known_types: ClassVar[dict[frozenset[int], Any]]

    async def _introspect_types(self, typeoids: Collection[int], timeout: float) -> Any:
        # On each connection the driver asks about the types of its first statements: the dearest thing that happens
        # there, and always with the same answer.
        wanted = frozenset(typeoids)
        if wanted not in self.known_types:
            self.known_types[wanted] = await super()._introspect_types(typeoids, timeout)  # type: ignore[misc]
        return self.known_types[wanted]

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        with _StatementTimer(self, query):
            return await super().execute(query, *args, **options)

    async def executemany(self, command: str, args: Any, **options: Any) -> None:
        with _StatementTimer(self, command):
            await super().executemany(command, args, **options)

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        with _StatementTimer(self, query):
            return await super().fetch(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        with _StatementTimer(self, query):
            return await super().fetchrow(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        with _StatementTimer(self, query):
            return await super().fetchval(query, *args, **options)


class _LazyConnection:
    """A connection that is taken from the pool when it is used for the first time; statements alone, one by one.

    It stands for itself in an `async with`, which costs next to nothing where there is no statement.
    """

    __slots__ = ("_connection", "_database", "_stack")

    def __init__(self, database: "Database") -> None:
        self._database = database
        self._stack: AsyncExitStack | None = None
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: Any) -> None:
        if self._stack is not None:
            with translated():
                await self._stack.__aexit__(*raised)

    async def _get(self) -> Connection:
        if self._connection is None:
            self._stack = AsyncExitStack()
            self._connection = await self._database.acquire(self._stack)
        return self._connection

    async def execute(self, query: str, *args: Any) -> str:
        return await (await self._get()).execute(query, *args)

    async def fetch(self, query: str, *args: Any) -> Any:
        return await (await self._get()).fetch(query, *args)

    async def fetchrow(self, query: str, *args: Any) -> Any:
        return await (await self._get()).fetchrow(query, *args)

    async def fetchval(self, query: str, *args: Any) -> Any:
        return await (await self._get()).fetchval(query, *args)


async def _leave_clean(connection: Connection) -> None:
    """Replaces the driver's reset between two uses, which costs a round trip: here no session is given settings."""


@dataclass(frozen=True, slots=True)
class PoolSize:
    """Connections that are open, and those of them that somebody uses."""

    open: int
    in_use: int


class Database:
    """The pool of connections of one process. Nothing in it retries; it finds its way back by itself after an outage.

    Use as `async with Database(...) as db:`, or `open()` and `close()`.
    """

    def __init__(
        self,
        url: str,
        config: DatabaseConfig | None = None,
        *,
        application_name: str = "heliograph",
        statement_names: Mapping[str, str] | None = None,
    ) -> None:
        """Takes the URL of a PostgreSQL database (never `embedded`) and the limits; connects to nothing yet.

        `statement_names` maps statements to the names under which they are measured (`storage.statements`).
        """
        config = config or DatabaseConfig()
        self._url = url
        self._pool_size_min = min(config.pool_size_min, config.pool_size_max)
        self._pool_size_max = config.pool_size_max
        self._acquire_timeout_seconds = config.acquire_timeout_ms / 1000
        # The server ends a slow statement; the driver's own limit is for a server that is silent.
        self._command_timeout_seconds = config.statement_timeout_ms / 1000 + 5
        self._server_settings = {
            "application_name": application_name,
            "statement_timeout": str(config.statement_timeout_ms),
            "lock_timeout": str(config.lock_timeout_ms),
            "idle_in_transaction_session_timeout": str(config.idle_in_transaction_timeout_ms),
            "default_transaction_isolation": "read committed",
            "timezone": "UTC",
            "jit": "off",
        }
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        times = StatementTimes(statement_names or {}, slow_ms=config.slow_statement_ms)
        self._connection_class = type(
            "_PoolConnection", (_TimedConnection,), {"__slots__": (), "times": times, "known_types": {}}
        )

    async def open(self) -> None:
        """Connects.

        Raises:
            DatabaseUnavailable: the database does not answer.
            DatabaseError: it refuses us (a wrong password, no such database).
        """
        with translated():
            async with asyncio.timeout(self._acquire_timeout_seconds + 5):
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=self._pool_size_min,
                    max_size=self._pool_size_max,
                    max_queries=1_000_000,
                    max_inactive_connection_lifetime=300,
                    command_timeout=self._command_timeout_seconds,
                    timeout=self._acquire_timeout_seconds,
                    server_settings=self._server_settings,
                    connection_class=self._connection_class,
                    reset=_leave_clean,
                )

    async def close(self) -> None:
        """Waits a moment for connections in use, then closes all."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(self._acquire_timeout_seconds):
                await pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pool.terminate()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection on which every statement is a transaction of its own.

        Raises:
            DatabaseUnavailable: there is none in time.
            ForbiddenInTransaction: a transaction is open here already.
        """
        forbid_in_transaction("A second connection")
        async with AsyncExitStack() as stack:
            connection = await self.acquire(stack)
            with translated():
                yield connection

    def connection_if_needed(self) -> AbstractAsyncContextManager[Connection]:
        """As `connection()`, but for work that often finds all in memory: the pool is asked at the first statement."""
        forbid_in_transaction("A second connection")
        return cast("AbstractAsyncContextManager[Connection]", _LazyConnection(self))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction that commits at the end of the block, or rolls back if an exception leaves it.

        The block holds nothing but database calls; waking others and calling out come after it. Raises as `connection`.
        """
        forbid_in_transaction("A second transaction")
        async with AsyncExitStack() as stack:
            connection = await self.acquire(stack)
            with translated():
                _transaction_open.set(True)
                try:
                    async with connection.transaction():
                        yield connection
                finally:
                    _transaction_open.set(False)

    async def acquire(self, stack: AsyncExitStack) -> Connection:
        """A connection, which goes back to the pool when the stack ends; `connection()` is the usual way.

        Raises:
            DatabaseUnavailable: there is none in time.
        """
        pool = self._pool
        if pool is None:
            raise DatabaseUnavailable("The database is closed")
        started = time.perf_counter()
        POOL_WAITERS.inc()
        with translated():
            try:
                return await stack.enter_async_context(pool.acquire(timeout=self._acquire_timeout_seconds))
            except TimeoutError as error:
                raise DatabaseUnavailable("No database connection became free in time") from error
            finally:
                POOL_WAITERS.dec()
                POOL_WAIT_SECONDS.observe(time.perf_counter() - started)

    def pool_size(self) -> PoolSize:
        """How many connections there are now, and how many of them are in use."""
        if self._pool is None:
            return PoolSize(open=0, in_use=0)
        connections = self._pool.get_size()
        return PoolSize(open=connections, in_use=connections - self._pool.get_idle_size())
