"""Builds every object of a worker once, in the order of the layers; takes them down in the reverse order."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from client_api.auth import client_authenticator
from homeserver.config.schema import Config, Resource
from homeserver.core.clock import Clock
from homeserver.core.signing import SigningKey
from homeserver.runtime import health, metrics
from homeserver.runtime.accounts import Accounts, Means, compose_accounts
from homeserver.runtime.application import Application, BackgroundTask
from homeserver.runtime.backfill import compose_backfill
from homeserver.runtime.encryption import compose_encryption
from homeserver.runtime.federation import compose_federation
from homeserver.runtime.incoming import compose_incoming
from homeserver.runtime.live import compose_live
from homeserver.runtime.media import Media, compose_media
from homeserver.runtime.memberships_elsewhere import compose_memberships_elsewhere
from homeserver.runtime.other_servers import MakeHttpClient, OtherServers, connect_other_servers, http_client
from homeserver.runtime.push import compose_push
from homeserver.runtime.reading import compose_reading
from homeserver.runtime.room_followers import compose_room_followers
from homeserver.runtime.room_writing import compose_room_writing
from homeserver.runtime.rooms import compose_rooms
from homeserver.runtime.sharing import compose_sharing
from homeserver.runtime.signing_key import load_own_keys
from homeserver.runtime.upkeep import compose_upkeep
from homeserver.runtime.vital_signs import VitalSigns, publish
from homeserver.services.accounts.attempts import AttemptCounts
from homeserver.services.admin.departures import Departures
from homeserver.services.e2ee.keys_of_devices import KeysOfDevices
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.stream.hub import Hub, StreamKeys
from homeserver.web.dispatch import Dispatcher, prepare
from homeserver.web.endpoint import RateLimit, Section
from homeserver.web.rate_limits import BucketStore, Rate, RateLimits
from homeserver.web.websocket import WEBSOCKET_SECTION, WebSocketTransport
from homeserver.web.write_tasks import WriteTasks
from storage.bus.base import Bus
from storage.cache_budget import PROCESS_BUDGET
from storage.database import Database
from storage.statements import statement_names
from storage.stream_keys import SELECT_STREAM_KEYS

STREAMS: Final = (StreamKeys("the streams", SELECT_STREAM_KEYS),)
"""What the hub looks at each second, should a wake have been lost."""


@asynccontextmanager
async def compose(
    config: Config,
    clock: Clock,
    *,
    bus: Bus | None = None,
    other_servers: OtherServers | None = None,
    make_http_client: MakeHttpClient = http_client,
) -> AsyncIterator[Application]:
    """A worker, until the block ends; its database must be up and migrated.

    Args:
        config: all settings.
        clock: the time.
        bus: what carries its wakes, where several workers share a process; None for the one that the settings name.
        other_servers: the ways to other servers, where they are not to be reached over the network; None for those
            that the settings say.
        make_http_client: makes what connects to other hosts.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    own_keys = load_own_keys(config.data_dir)
    PROCESS_BUDGET.set_bytes_max(config.caches.total_bytes_max)
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(
            Database(config.database.url, config.database, statement_names=statement_names())
        )
        sharing = compose_sharing(config, clock, stack)
        shutdown_seconds = config.limits.shutdown_timeout_ms / 1000
        writes = await stack.enter_async_context(WriteTasks(shutdown_seconds=shutdown_seconds))
        bus = bus or sharing.bus
        hub = Hub(db=db, bus=bus, clock=clock, streams=STREAMS)
        means = Means(config=config, db=db, bus=bus, clock=clock)
        others = other_servers or await connect_other_servers(
            means, own_keys=own_keys, make_http_client=make_http_client, stack=stack
        )
        media = await compose_media(means, sharing.byte_buckets, others.remotes.media, make_http_client, stack)
        services = _services(means, hub=hub, key=own_keys.signing, attempts=sharing.attempts, others=others)
        dispatcher = Dispatcher(
            authenticate_client=client_authenticator(services.accounts.authentication),
            authenticate_server=others.authenticate,
            rate_limits=_rate_limits(config, sharing.buckets),
            writes=writes,
            clock=clock,
        )
        websocket = _websocket(means, services, dispatcher)

        def drain() -> None:
            hub.stop()
            websocket.stop()

        yield Application(
            sections=_sections(means, services, media),
            dispatcher=dispatcher,
            clock=clock,
            websocket=websocket,
            background=[
                BackgroundTask("bus", bus.run),
                BackgroundTask("hub", hub.run),
                BackgroundTask("vital_signs", VitalSigns(db=db, clock=clock).run),
                *services.background,
                *media.background,
            ],
            drain=drain,
            is_healthy=partial(health.is_healthy, db),
        )


def _sections(means: Means, services: "_Services", media: Media) -> dict[Resource, Sequence[Section]]:
    config, db = means.config, means.db
    return {
        "client": services.client_sections,
        "federation": _if_federating(config, services.federation_sections, media.federation_sections),
        "media": media.sections,
        "admin": [*services.accounts.admin_sections, *media.admin_sections],
        "health": [health.section(db)],
        "metrics": [metrics.section(lambda: publish(db))],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Services:
    """All use cases of a worker."""

    accounts: Accounts
    client_sections: Sequence[Section]
    federation_sections: Sequence[Section]
    background: Sequence[BackgroundTask]


def _services(means: Means, *, hub: Hub, key: SigningKey, attempts: AttemptCounts, others: OtherServers) -> _Services:
    db, clock, remotes = means.db, means.clock, others.remotes
    push = compose_push(means, hub=hub)
    departure_due = asyncio.Event()
    accounts = compose_accounts(
        means,
        on_departure=departure_due.set,
        attempt_counts=attempts,
        remote_profiles=remotes.profiles,
        device_observers=(KeysOfDevices(),),
        computed_account_data={"m.push_rules": push.rules.content},
    )
    presence = Presence(db=db, clock=clock, config=means.config.presence)
    writing = compose_room_writing(means, key=key, push=push.evaluation, remotes=remotes)
    incoming = compose_incoming(means, writing=writing, remotes=remotes, push=push.evaluation)
    elsewhere = compose_memberships_elsewhere(means, key=key, writing=writing, incoming=incoming, remotes=remotes)
    rooms = compose_rooms(
        means,
        writing=writing,
        incoming=incoming,
        elsewhere=elsewhere,
        remotes=remotes,
        room_rules=push.rules,
        note_activity=presence.note_activity,
    )
    backfill = compose_backfill(means, writing=writing, incoming=incoming, remotes=remotes)
    reading = compose_reading(means, rooms, remotes=remotes, backfill=backfill, imports=backfill)
    live = compose_live(means, hub=hub, presence=presence, accounts=accounts, rooms=rooms, reading=reading, push=push)
    departures = Departures(db=db, memberships=rooms.memberships, due=departure_due)
    encryption = compose_encryption(means, hub=hub, devices=accounts.devices, uia=accounts.uia, others=others)
    federation = compose_federation(
        means,
        hub=hub,
        key=key,
        accounts=accounts,
        writing=writing,
        rooms=rooms,
        reading=reading,
        live=live,
        encryption=encryption,
        incoming=incoming,
        others=others,
    )
    parts = (accounts, rooms, reading, live, push, encryption)
    return _Services(
        accounts=accounts,
        federation_sections=federation.sections,
        client_sections=[*(section for part in parts for section in part.sections), WEBSOCKET_SECTION],
        background=[
            *accounts.background,
            BackgroundTask("departures", departures.run),
            *compose_room_followers(means, hub=hub, rooms=rooms),
            *live.background,
            *push.background,
            *encryption.background,
            BackgroundTask("backfill", backfill.run),
            *elsewhere.background,
            *federation.background,
            *others.background,
            *compose_upkeep(means),
        ],
    )


def _websocket(means: Means, services: _Services, dispatcher: Dispatcher) -> WebSocketTransport:
    proxies = {str(proxy) for listener in means.config.listeners for proxy in listener.x_forwarded}
    return WebSocketTransport(
        operations=prepare(services.client_sections),
        dispatcher=dispatcher,
        clock=means.clock,
        trusted_proxies=sorted(proxies),
    )


def _if_federating(config: Config, *parts: Sequence[Section]) -> Sequence[Section]:
    """All sections for other servers; none where this server does not talk with others."""
    return [section for part in parts for section in part] if config.federation.enabled else ()


def _rate_limits(config: Config, store: BucketStore) -> RateLimits:
    limits = config.rate_limits
    rates = {kind: getattr(limits, kind.value) for kind in RateLimit}
    return RateLimits(
        store=store,
        rates={kind: Rate(per_second=rate.per_second, burst=rate.burst) for kind, rate in rates.items()},
        enabled=limits.enabled,
    )
