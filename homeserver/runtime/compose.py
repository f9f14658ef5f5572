"""Builds every object of a worker once, in the order of the layers; takes them down in the reverse order."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from client_api.auth import client_authenticator
from homeserver.config.schema import Config
from homeserver.core.clock import Clock
from homeserver.core.errors import Unauthorized
from homeserver.core.signing import SigningKey
from homeserver.runtime import health, metrics
from homeserver.runtime.accounts import Accounts, Means, compose_accounts
from homeserver.runtime.application import Application, BackgroundTask
from homeserver.runtime.live import compose_live
from homeserver.runtime.push import compose_push
from homeserver.runtime.reading import compose_reading
from homeserver.runtime.rooms import compose_rooms
from homeserver.runtime.signing_key import load_signing_key
from homeserver.services.accounts.attempts import AttemptCounts, LocalAttemptCounts
from homeserver.services.accounts.redis_attempts import RedisAttemptCounts
from homeserver.services.admin.departures import Departures
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.ports import NoRemoteProfiles
from homeserver.services.rooms import profile_updates as profile_updates_stream
from homeserver.services.stream.follower import Follower
from homeserver.services.stream.hub import Hub, StreamKeys
from homeserver.web.dispatch import Dispatcher, prepare
from homeserver.web.endpoint import Endpoint, RateLimit, Request, Section
from homeserver.web.rate_limits import BucketStore, LocalBuckets, Rate, RateLimits
from homeserver.web.redis_rate_limits import RedisBuckets
from homeserver.web.websocket import WEBSOCKET_SECTION, WebSocketTransport
from homeserver.web.write_tasks import WriteTasks
from storage.account_data import SELECT_ACCOUNT_DATA_KEYS
from storage.bus.base import Bus
from storage.bus.memory import MemoryBus
from storage.bus.redis import RedisBus
from storage.database import Database
from storage.devices import SELECT_DEVICE_KEYS
from storage.presence import SELECT_PRESENCE_KEYS
from storage.profiles import SELECT_PROFILE_KEYS
from storage.push_rules import SELECT_PUSH_RULE_KEYS
from storage.receipts import SELECT_RECEIPT_KEYS
from storage.statements import statement_names
from storage.timelines import SELECT_EVENT_KEYS, SELECT_MEMBERSHIP_KEYS
from storage.typing import SELECT_TYPING_KEYS

STREAMS: Final = (
    StreamKeys("events", SELECT_EVENT_KEYS),
    StreamKeys("membership_changes", SELECT_MEMBERSHIP_KEYS),
    StreamKeys("account_data", SELECT_ACCOUNT_DATA_KEYS),
    StreamKeys("devices", SELECT_DEVICE_KEYS),
    StreamKeys("presence", SELECT_PRESENCE_KEYS),
    StreamKeys("profiles", SELECT_PROFILE_KEYS),
    StreamKeys("push_rules", SELECT_PUSH_RULE_KEYS),
    StreamKeys("receipts", SELECT_RECEIPT_KEYS),
    StreamKeys("typing", SELECT_TYPING_KEYS),
)
"""What the hub looks at each second, should a wake have been lost."""


@asynccontextmanager
async def compose(config: Config, clock: Clock, *, bus: Bus | None = None) -> AsyncIterator[Application]:
    """A worker, until the block ends; its database must be up and migrated.

    Args:
        config: all settings.
        clock: the time.
        bus: what carries its wakes, where several workers share a process; None for the one that the settings name.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    key = load_signing_key(config.data_dir)
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(
            Database(config.database.url, config.database, statement_names=statement_names())
        )
        redis = await _redis(config, stack)
        shutdown_seconds = config.limits.shutdown_timeout_ms / 1000
        writes = await stack.enter_async_context(WriteTasks(shutdown_seconds=shutdown_seconds))
        bus = bus or _bus(config, clock)
        hub = Hub(db=db, bus=bus, clock=clock, streams=STREAMS)
        means = Means(config=config, db=db, bus=bus, clock=clock)
        services = _services(means, hub=hub, key=key, redis=redis)
        dispatcher = Dispatcher(
            authenticate_client=client_authenticator(services.accounts.authentication),
            authenticate_server=_refuse_server,
            rate_limits=_rate_limits(config, clock, redis),
            writes=writes,
            clock=clock,
        )
        websocket = WebSocketTransport(
            operations=prepare(services.client_sections),
            dispatcher=dispatcher,
            clock=clock,
            trusted_proxies=sorted({str(proxy) for listener in config.listeners for proxy in listener.x_forwarded}),
        )

        def drain() -> None:
            hub.stop()
            websocket.stop()

        yield Application(
            sections={
                "client": services.client_sections,
                "admin": services.accounts.admin_sections,
                "health": [health.section(db)],
                "metrics": [metrics.section()],
            },
            dispatcher=dispatcher,
            clock=clock,
            websocket=websocket,
            background=[BackgroundTask("bus", bus.run), BackgroundTask("hub", hub.run), *services.background],
            drain=drain,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Services:
    """All use cases of a worker."""

    accounts: Accounts
    client_sections: Sequence[Section]
    background: Sequence[BackgroundTask]


def _services(means: Means, *, hub: Hub, key: SigningKey, redis: Redis | None) -> _Services:
    db, clock = means.db, means.clock
    push = compose_push(means, hub=hub)
    departure_due = asyncio.Event()
    accounts = compose_accounts(
        means,
        on_departure=departure_due.set,
        attempt_counts=_attempt_counts(clock, redis),
        remote_profiles=NoRemoteProfiles(),
        computed_account_data={"m.push_rules": push.rules.content},
    )
    presence = Presence(db=db, clock=clock, config=means.config.presence)
    rooms = compose_rooms(
        means, key=key, push=push.evaluation, room_rules=push.rules, note_activity=presence.note_activity
    )
    reading = compose_reading(means, rooms)
    live = compose_live(means, hub=hub, presence=presence, accounts=accounts, rooms=rooms, reading=reading, push=push)
    profile_updates = Follower(
        name=profile_updates_stream.NAME,
        keys=profile_updates_stream.KEYS,
        consumer=rooms.profile_updates,
        db=db,
        hub=hub,
        clock=clock,
    )
    departures = Departures(db=db, memberships=rooms.memberships, due=departure_due)
    parts = (accounts, rooms, reading, live, push)
    return _Services(
        accounts=accounts,
        client_sections=[*(section for part in parts for section in part.sections), WEBSOCKET_SECTION],
        background=[
            BackgroundTask("last_seen", accounts.last_seen.run),
            BackgroundTask("departures", departures.run),
            BackgroundTask("profile_updates", profile_updates.run),
            *live.background,
            *push.background,
        ],
    )


async def _redis(config: Config, stack: AsyncExitStack) -> Redis | None:
    """The connection pool for what several processes count together; it connects when it is used."""
    if config.redis.url is None:
        return None
    redis: Redis = Redis.from_url(config.redis.url)
    stack.push_async_callback(redis.aclose)
    return redis


def _bus(config: Config, clock: Clock) -> Bus:
    if config.redis.url is None:
        return MemoryBus()
    return RedisBus(url=config.redis.url, channel=f"heliograph:{config.server_name}", clock=clock)


def _rate_limits(config: Config, clock: Clock, redis: Redis | None) -> RateLimits:
    limits = config.rate_limits
    rates = {kind: getattr(limits, kind.value) for kind in RateLimit}
    store: BucketStore = LocalBuckets(clock)
    if redis is not None:
        store = RedisBuckets(redis, fallback=store, clock=clock)
    return RateLimits(
        store=store,
        rates={kind: Rate(per_second=rate.per_second, burst=rate.burst) for kind, rate in rates.items()},
        enabled=limits.enabled,
    )


def _attempt_counts(clock: Clock, redis: Redis | None) -> AttemptCounts:
    local = LocalAttemptCounts(clock)
    return local if redis is None else RedisAttemptCounts(redis, fallback=local, clock=clock)


async def _refuse_server(_: Endpoint, __: Request) -> Request:
    raise Unauthorized("This server does not federate")
