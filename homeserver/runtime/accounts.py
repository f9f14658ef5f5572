"""Builds what accounts are made of: the services, and their endpoints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from client_api.admin import registration_tokens as admin_registration_tokens
from client_api.admin import server_version as admin_server_version
from client_api.admin import shared_secret as admin_shared_secret
from client_api.admin import users as admin_users
from client_api.sections import (
    account,
    account_data,
    account_moderation,
    auth_fallback,
    capabilities,
    devices,
    filters,
    login,
    logout,
    openid,
    profile,
    refresh,
    registration,
    versions,
    well_known,
)
from homeserver.config.schema import Config
from homeserver.core.clock import Clock
from homeserver.runtime.application import BackgroundTask
from homeserver.services.accounts.account_data import AccountData, ComputedContent
from homeserver.services.accounts.administration import Administration
from homeserver.services.accounts.attempts import AttemptCounts, AttemptLimits
from homeserver.services.accounts.authentication import Authentication
from homeserver.services.accounts.credentials import Credentials
from homeserver.services.accounts.deactivation import Deactivation
from homeserver.services.accounts.devices import DeviceObserver, Devices
from homeserver.services.accounts.filters import Filters
from homeserver.services.accounts.guest_sweep import GuestSweep
from homeserver.services.accounts.guests import Guests
from homeserver.services.accounts.last_seen import LastSeen
from homeserver.services.accounts.login import Login
from homeserver.services.accounts.moderation import Moderation
from homeserver.services.accounts.openid import OpenId
from homeserver.services.accounts.password_change import PasswordChange
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.profiles import Profiles
from homeserver.services.accounts.registration import Registration
from homeserver.services.accounts.registration_tokens import RegistrationTokens
from homeserver.services.accounts.session_lookup import SessionLookup
from homeserver.services.accounts.sessions import Sessions
from homeserver.services.accounts.shared_secret import SharedSecretRegistration
from homeserver.services.accounts.token_key_upkeep import TokenKeyUpkeep
from homeserver.services.accounts.token_signer import TokenSigner
from homeserver.services.accounts.uia import UserInteractiveAuth
from homeserver.services.accounts.uia_stages import DummyStage, PasswordStage, RegistrationTokenStage, TermsStage
from homeserver.services.ports import RemoteProfiles
from homeserver.web.endpoint import Section
from storage.bus.base import Bus
from storage.database import Database

# With one process, what it has read of a session is believed for this long; only the command line changes sessions too.
SESSION_FRESH_MS: Final = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What all of it is made with."""

    config: Config
    db: Database
    bus: Bus
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The services that others build upon or that run beside the listeners, and all endpoints."""

    authentication: Authentication
    account_data: AccountData
    administration: Administration
    deactivation: Deactivation
    devices: Devices
    filters: Filters
    last_seen: LastSeen
    openid: OpenId
    profiles: Profiles
    signer: TokenSigner
    uia: UserInteractiveAuth
    sections: Sequence[Section]
    admin_sections: Sequence[Section]
    background: Sequence[BackgroundTask]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Access:
    """Sessions, and who asks by them."""

    lookup: SessionLookup
    signer: TokenSigner
    last_seen: LastSeen
    authentication: Authentication
    devices: Devices
    sessions: Sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proofs:
    """Passwords, and how people show who they are."""

    passwords: Passwords
    credentials: Credentials
    uia: UserInteractiveAuth


def compose_accounts(
    means: Means,
    *,
    attempt_counts: AttemptCounts,
    remote_profiles: RemoteProfiles,
    device_observers: Sequence[DeviceObserver] = (),
    computed_account_data: Mapping[str, ComputedContent] | None = None,
    on_departure: Callable[[], None] = lambda: None,
) -> Accounts:
    """Builds all services of accounts and their endpoints.

    Args:
        means: what it is made with.
        attempt_counts: where wrong passwords are counted.
        remote_profiles: the profiles of users of other servers.
        device_observers: told of every change of a device.
        computed_account_data: contents of account data that others look after, by type.
        on_departure: called when a deactivated user must leave its rooms.
    """
    config, db, bus, clock = means.config, means.db, means.bus, means.clock
    access = _access(means, device_observers)
    proofs = _proofs(means, attempt_counts)
    password_change = PasswordChange(db=db, passwords=proofs.passwords, devices=access.devices)
    profiles = Profiles(db=db, bus=bus, server_name=config.server_name, config=config.profile, remote=remote_profiles)
    deactivation = Deactivation(
        db=db, bus=bus, clock=clock, lookup=access.lookup, devices=access.devices, on_departure=on_departure
    )
    accounts = Accounts(
        authentication=access.authentication,
        account_data=AccountData(db=db, bus=bus, computed=computed_account_data),
        administration=Administration(
            db=db,
            bus=bus,
            clock=clock,
            server_name=config.server_name,
            passwords=proofs.passwords,
            sessions=access.sessions,
            password_change=password_change,
            profiles=profiles,
            deactivation=deactivation,
            lookup=access.lookup,
        ),
        deactivation=deactivation,
        devices=access.devices,
        filters=Filters(db=db),
        last_seen=access.last_seen,
        openid=OpenId(db=db, clock=clock, server_name=config.server_name),
        profiles=profiles,
        signer=access.signer,
        uia=proofs.uia,
        sections=(),
        admin_sections=(),
        background=_background(means, access, deactivation),
    )
    return replace(
        accounts,
        sections=(
            *_login_sections(means, access, proofs),
            account.section(password_change, deactivation, proofs.uia),
            *_user_sections(means, accounts),
            account_moderation.section(Moderation(db=db, server_name=config.server_name, lookup=access.lookup)),
        ),
        admin_sections=_admin_sections(means, accounts, access),
    )


def _background(means: Means, access: _Access, deactivation: Deactivation) -> Sequence[BackgroundTask]:
    db, clock = means.db, means.clock
    unused_ms = means.config.registration.guest_unused_ms
    guests = GuestSweep(db=db, clock=clock, deactivation=deactivation, unused_ms=unused_ms)
    keys = TokenKeyUpkeep(db=db, clock=clock, signer=access.signer)
    return (
        BackgroundTask("last_seen", access.last_seen.run),
        BackgroundTask("token_key_upkeep", keys.run),
        BackgroundTask("guest_sweep", guests.run),
    )


def _access(means: Means, device_observers: Sequence[DeviceObserver]) -> _Access:
    config, db, bus, clock = means.config, means.db, means.bus, means.clock
    # With Redis there may be other workers, perhaps on other machines, that end sessions.
    lookup = SessionLookup(db=db, clock=clock, fresh_ms=SESSION_FRESH_MS if config.redis.url is None else 0)
    signer = TokenSigner(db=db, clock=clock, server_name=config.server_name)
    last_seen = LastSeen(db=db, clock=clock, interval_ms=config.sessions.last_seen_interval_ms)
    device_service = Devices(db=db, bus=bus, lookup=lookup, observers=device_observers)
    return _Access(
        lookup=lookup,
        signer=signer,
        last_seen=last_seen,
        authentication=Authentication(db=db, clock=clock, signer=signer, lookup=lookup, last_seen=last_seen),
        devices=device_service,
        sessions=Sessions(
            db=db,
            bus=bus,
            clock=clock,
            config=config.sessions,
            signer=signer,
            lookup=lookup,
            devices=device_service,
        ),
    )


def _proofs(means: Means, attempt_counts: AttemptCounts) -> _Proofs:
    config, db, clock = means.config, means.db, means.clock
    limits = AttemptLimits(counts=attempt_counts, rate=config.rate_limits.login, enabled=config.rate_limits.enabled)
    passwords = Passwords(config.passwords)
    credentials = Credentials(
        db=db, server_name=config.server_name, config=config.passwords, passwords=passwords, limits=limits
    )
    stages = (
        DummyStage(),
        PasswordStage(credentials),
        TermsStage(config.registration.terms),
        RegistrationTokenStage(db=db, clock=clock),
    )
    uia = UserInteractiveAuth(db=db, clock=clock, stages=stages)
    return _Proofs(passwords=passwords, credentials=credentials, uia=uia)


def _login_sections(means: Means, access: _Access, proofs: _Proofs) -> Sequence[Section]:
    """The ways to a session, and out of it."""
    config, db, bus, clock = means.config, means.db, means.bus, means.clock
    guests = Guests(
        db=db,
        clock=clock,
        server_name=config.server_name,
        config=config.registration,
        authentication=access.authentication,
        sessions=access.sessions,
        devices=access.devices,
    )
    registration_service = Registration(
        db=db,
        bus=bus,
        clock=clock,
        server_name=config.server_name,
        config=config.registration,
        passwords=proofs.passwords,
        sessions=access.sessions,
        guests=guests,
        uia=proofs.uia,
    )
    login_service = Login(db=db, clock=clock, credentials=proofs.credentials, sessions=access.sessions)
    return (
        login.section(login_service, proofs.uia, well_known.client_discovery(config)),
        registration.section(registration_service, guests),
        auth_fallback.section(registration_service, config.registration.terms),
        refresh.section(access.sessions),
        logout.section(access.sessions),
    )


def _user_sections(means: Means, accounts: Accounts) -> Sequence[Section]:
    """What users do with their accounts, and what everybody asks first."""
    config = means.config
    return (
        versions.section(),
        well_known.section(config),
        capabilities.section(passwords=config.passwords, profile=config.profile, rooms=config.rooms),
        devices.section(accounts.devices, accounts.uia),
        profile.section(accounts.profiles),
        account_data.section(accounts.account_data),
        filters.section(accounts.filters),
        openid.section(accounts.openid),
    )


def _admin_sections(means: Means, accounts: Accounts, access: _Access) -> Sequence[Section]:
    shared_secret = SharedSecretRegistration(
        db=means.db,
        clock=means.clock,
        shared_secret=means.config.registration.shared_secret,
        administration=accounts.administration,
        sessions=access.sessions,
    )
    return (
        admin_server_version.section(),
        admin_shared_secret.section(shared_secret),
        admin_users.section(accounts.administration),
        admin_registration_tokens.section(RegistrationTokens(db=means.db, clock=means.clock)),
    )
