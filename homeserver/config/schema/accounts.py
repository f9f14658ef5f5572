"""Accounts: who may make one, passwords, and how long access lasts."""

from dataclasses import dataclass
from typing import Annotated

from homeserver.config.values import Amount, Count, HttpUrl, Range, Secret


@dataclass(frozen=True, slots=True)
class TermsConfig:
    """A document that users must accept when they register."""

    id: str
    """A name for the document that never changes, for example `privacy_policy`."""
    version: str
    """Its version."""
    name: str
    """Its title, as users see it."""
    url: HttpUrl
    """Where it can be read."""


@dataclass(frozen=True, slots=True)
class RegistrationConfig:
    """Who may make an account. `homeserver user create` always can."""

    enabled: bool = False
    """Whether anybody may register. Accounts are also made with the shared secret and with `homeserver user create`."""
    shared_secret: Secret | None = None
    """Whoever knows it can make accounts, administrators too, through `/_synapse/admin/v1/register`."""
    require_verification: bool = True
    """Whether registering takes more than a password: a token. Without it, everybody on the network can make any
    number of accounts."""
    requires_token: bool = False
    """Whether registering takes a token, which administrators make (`m.login.registration_token`)."""
    guest_access: bool = False
    """Whether guests get accounts, without a password and with few rights."""
    guest_unused_ms: Count | None = 7_776_000_000
    """After how long the account of a guest is deactivated that nobody has used; `null`: never."""
    terms: tuple[TermsConfig, ...] = ()
    """Documents to accept when registering (`m.login.terms`): `[{id, version, name, url}]`."""
    reserved_usernames: tuple[str, ...] = ()
    """User names, without `@` and server, that nobody can register."""


@dataclass(frozen=True, slots=True)
class PasswordPolicyConfig:
    """What a new password must be."""

    minimum_length: Annotated[int, Range(1, 512)] = 8
    """Characters, at least."""
    require_digit: bool = False
    """Whether there must be a digit."""
    require_symbol: bool = False
    """Whether there must be something that is neither letter nor digit."""
    require_lowercase: bool = False
    """Whether there must be a lower-case letter."""
    require_uppercase: bool = False
    """Whether there must be an upper-case letter."""


@dataclass(frozen=True, slots=True)
class PasswordsConfig:
    """Passwords, and how they are hashed (argon2id)."""

    enabled: bool = True
    """Whether users can log in with a password."""
    time_cost: Annotated[int, Range(1, 100)] = 2
    """Passes of the hash."""
    memory_cost_kib: Annotated[int, Range(8, 4_194_304)] = 19_456
    """Memory of the hash, in KiB, for each password that is being checked."""
    parallelism: Annotated[int, Range(1, 64)] = 1
    """Threads of the hash."""
    policy: PasswordPolicyConfig = PasswordPolicyConfig()


@dataclass(frozen=True, slots=True)
class SessionsConfig:
    """How long access lasts."""

    access_token_lifetime_ms: Count | None = None
    """The life of an access token whose client did not ask for a refresh token; `null`: until it logs out."""
    refreshable_access_token_lifetime_ms: Count = 300_000
    """The life of an access token that comes with a refresh token."""
    refresh_token_lifetime_ms: Count | None = None
    """How long a refresh token that is not used stays good; `null`: until the device logs out."""
    refresh_token_reuse_ms: Amount = 0
    """How long a refresh token stays good after its successor was first used. The specification says not at all; raise
    it for clients that refresh from several windows at once. A token whose successor is unused is always good."""
    last_seen_interval_ms: Count = 120_000
    """How often, at most, a device's last use is written down."""
