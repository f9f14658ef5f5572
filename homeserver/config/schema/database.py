"""PostgreSQL, Redis, and what is kept in memory of them."""

from dataclasses import dataclass
from typing import Annotated

from homeserver.config.values import Amount, Count, Range, Secret, Url


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """PostgreSQL, where everything but media is kept."""

    url: Annotated[Secret, Url(("postgresql", "postgres"), words=("embedded",))] = Secret("embedded")
    """`postgresql://user:password@host:port/database`, or `embedded` for one that the server runs itself in
    `data_dir/postgres` (as the user `postgres` or `nobody`, if the server is root). Give it a database of its own: a
    transaction that others keep open there, having written, delays what clients are told."""
    pool_size_min: Annotated[int, Range(0, 1000)] = 2
    """How many connections each worker keeps open."""
    pool_size_max: Annotated[int, Range(1, 1000)] = 10
    """How many connections each worker opens at most."""
    acquire_timeout_ms: Count = 5_000
    """How long a request waits for a free connection before it is answered with 503."""
    statement_timeout_ms: Count = 10_000
    """How long a statement may run."""
    lock_timeout_ms: Count = 3_000
    """How long a statement may wait for a lock."""
    idle_in_transaction_timeout_ms: Count = 5_000
    """How long a transaction may do nothing; such a one holds back every reader."""
    slow_statement_ms: Amount = 1_000
    """Statements that take as long are told in the log, by name and without parameters; 0: none."""


@dataclass(frozen=True, slots=True)
class CachesConfig:
    """What each worker keeps in memory of what it has read."""

    total_bytes_max: Count = 48 * 1024 * 1024
    """The space of all caches together. Where it is full, the largest of them forgets what was used least recently. A
    worker takes about 100 MiB besides."""


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """Redis, through which several workers wake each other. It holds nothing that must not be lost."""

    url: Annotated[Secret, Url(("redis", "rediss", "unix"))] | None = None
    """`redis://host:port/0`; needed when `workers` is more than 1, and by servers that share a database."""
