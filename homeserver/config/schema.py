"""Every setting of the server: one frozen dataclass for each section of `config.yaml`.

The text below each field is its documentation: `reference.py` makes the example configuration and docs/configuration.md
of it. `load.py` fills these classes. A field's name is its key; `_ms` and `_bytes` say the unit, and such fields may be
written as texts too (`30s`, `5m`, `7d`; `50M`).
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from homeserver.config.values import Amount, Count, ExistingFile, HttpUrl, IpNetwork, Port, Range, Secret, Url
from homeserver.core.ids import ServerName

Resource: TypeAlias = Literal["client", "federation", "media", "admin", "metrics", "health"]

PRIVATE_RANGES: Final[tuple[IpNetwork, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "2001:db8::/32",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """The certificate of a listener that speaks TLS itself, without a reverse proxy."""

    certificate: ExistingFile
    """The certificate with its chain, in PEM form."""
    private_key: ExistingFile
    """The certificate's private key, in PEM form."""


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """A port that the server listens on, and what it serves there."""

    port: Port
    """The TCP port; 0 takes a free one."""
    bind_addresses: tuple[str, ...] = ("127.0.0.1",)
    """The addresses to listen on: `0.0.0.0` is every IPv4 address, `::` every IPv6 address. Behind a reverse proxy keep
    the default."""
    resources: tuple[Resource, ...] = ("client", "federation", "media", "admin", "health")
    """What is served: `client`, `federation`, `media`, `admin`, `metrics` and `health`; all else is not found here.
    `metrics` is for nobody but your monitoring: give it a listener of its own if the port is open to the world."""
    tls: TlsConfig | None = None
    """Certificate and key, to speak TLS on this port: `{certificate: tls.crt, private_key: tls.key}`."""
    x_forwarded: tuple[IpNetwork, ...] = ()
    """The addresses of reverse proxies whose `X-Forwarded-For` is believed, for example `[127.0.0.1]`. From anybody
    else the header is ignored, for rate limits count by address."""


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


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """Redis, through which several workers wake each other. It holds nothing that must not be lost."""

    url: Annotated[Secret, Url(("redis", "rediss", "unix"))] | None = None
    """`redis://host:port/0`; needed when `workers` is more than 1."""


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


@dataclass(frozen=True, slots=True)
class KeyServerConfig:
    """A server that is asked for the signing keys of others (a notary)."""

    server_name: ServerName
    """Its name."""
    verify_keys: Mapping[str, str] = field(default_factory=dict)
    """Its own keys, by key id, in base64. Without them the TLS connection alone vouches for it."""


@dataclass(frozen=True, slots=True)
class FederationConfig:
    """Talking with other servers."""

    enabled: bool = True
    """Whether this server takes part in federation at all."""
    verify_certificates: bool = True
    """Whether other servers must show a certificate that is good for their name. Never turn this off but for tests."""
    ca_file: ExistingFile | None = None
    """Certificate authorities to trust, in PEM form, in place of those of the system."""
    ip_range_blocklist: tuple[IpNetwork, ...] = PRIVATE_RANGES
    """Addresses that the server never connects to on behalf of others, for federation, push and previews."""
    ip_range_allowlist: tuple[IpNetwork, ...] = ()
    """Addresses that it connects to nevertheless, for example `[10.1.2.3]` for a server in your own network."""
    trusted_key_servers: tuple[KeyServerConfig, ...] = ()
    """Servers that are asked for the keys of servers that cannot be reached: `[{server_name: example.com}]`."""
    denied_keys: tuple[str, ...] = ()
    """Signing keys that nobody's signatures are accepted from, because they have become known: each as it is published,
    in base64, or as the SHA-256 of its 32 bytes in hexadecimal digits."""
    allowed_servers: tuple[str, ...] | None = None
    """The only servers to talk with, by name; `*` and `?` stand for any characters. `null`: all."""
    denied_servers: tuple[str, ...] = ()
    """Servers not to talk with, neither by our own accord nor when they ask; written as `allowed_servers`."""
    faster_joins: bool = True
    """Whether users are in a room of other servers as soon as most of its state has come; its members follow."""


@dataclass(frozen=True, slots=True)
class RateConfig:
    """A rate: so many a second in the long run, and so many at once."""

    per_second: Annotated[float, Range(0.0001, 1_000_000)]
    """How many a second."""
    burst: Count
    """How many at once, after a pause."""


@dataclass(frozen=True, slots=True)
class RateLimitsConfig:
    """How often each user, or each address without a user, may ask. Written `{per_second: 0.2, burst: 5}`."""

    enabled: bool = True
    """Whether there are limits."""
    read: RateConfig = RateConfig(per_second=50, burst=200)
    """Reading that costs something: searches, directories, history."""
    write: RateConfig = RateConfig(per_second=20, burst=100)
    """Changes that are not messages: receipts, typing, account data, keys."""
    message: RateConfig = RateConfig(per_second=5, burst=50)
    """Sending events."""
    registration: RateConfig = RateConfig(per_second=0.1, burst=5)
    """Making accounts, by address."""
    login: RateConfig = RateConfig(per_second=0.2, burst=10)
    """Logging in, by address and by account."""
    join: RateConfig = RateConfig(per_second=0.5, burst=20)
    """Joining rooms."""
    invite: RateConfig = RateConfig(per_second=0.3, burst=20)
    """Inviting users."""
    create_room: RateConfig = RateConfig(per_second=0.1, burst=10)
    """Creating and upgrading rooms."""
    report: RateConfig = RateConfig(per_second=0.1, burst=10)
    """Reporting rooms, events and users."""
    media: RateConfig = RateConfig(per_second=50, burst=500)
    """Downloads and thumbnails."""
    federation: RateConfig = RateConfig(per_second=50, burst=500)
    """Requests of other servers, by server."""


@dataclass(frozen=True, slots=True)
class ByteRateConfig:
    """A rate of bytes: so many a second in the long run, and so many at once."""

    per_second_bytes: Count
    """How many bytes a second."""
    burst_bytes: Count
    """How many bytes at once, after a pause."""


@dataclass(frozen=True, slots=True)
class UrlPreviewsConfig:
    """Previews of the pages that messages link to. The server fetches them, so their hosts learn its address."""

    enabled: bool = False
    """Whether there are previews."""
    allowed_urls: tuple[str, ...] = ()
    """The only pages to preview, `host/path` with `*` and `?` for any characters, for example `[example.org/*]`. Empty:
    all."""
    denied_urls: tuple[str, ...] = ()
    """Pages not to preview, written as `allowed_urls`."""
    page_bytes_max: Count = 10 * 1024 * 1024
    """The largest page or picture that is fetched, in bytes."""
    languages: tuple[str, ...] = ("en",)
    """The languages that pages are asked for, if the client wishes none."""
    kept_ms: Count = 3_600_000
    """How long a preview is believed."""


@dataclass(frozen=True, slots=True)
class MediaConfig:
    """Files: uploads, downloads, thumbnails. They are kept in `data_dir/media`."""

    upload_bytes_max: Count = 50 * 1024 * 1024
    """The largest file that is taken, in bytes. A reverse proxy in front must let it through."""
    user_bytes_max: Count | None = None
    """How many bytes each user may have here in all; `null`: any number."""
    user_files_max: Count | None = None
    """How many files each user may have here; `null`: any number."""
    pending_per_user_max: Count = 5
    """How many names each user may have for uploads to come."""
    pending_lifetime_ms: Count = 86_400_000
    """How long such a name waits for its upload."""
    uploads: ByteRateConfig = ByteRateConfig(per_second_bytes=1024 * 1024, burst_bytes=1024 * 1024 * 1024)
    """How much each user may upload. Written `{per_second_bytes: 100K, burst_bytes: 500M}`."""
    remote_bytes_max: Count = 50 * 1024 * 1024
    """The largest file that is fetched from another server, in bytes."""
    remote_fetches: ByteRateConfig = ByteRateConfig(per_second_bytes=1024 * 1024, burst_bytes=1024 * 1024 * 1024)
    """How much each user, or each address without one, may have fetched from other servers."""
    require_authentication: bool = True
    """Whether media that are uploaded or fetched from now on are given only to those who show who they are. What is
    here already stays as it is."""
    picture_pixels_max: Count = 32_000_000
    """The largest picture of which thumbnails are made, in pixels."""
    local_age_ms: Count | None = None
    """How long uploads are kept; `null`: for ever. Protected ones always are."""
    local_unused_ms: Count | None = None
    """How long uploads that nobody asks for are kept, pictures of users excepted; `null`: for ever."""
    local_total_bytes_max: Count | None = None
    """The space of all uploads; those that nobody has asked for longest go first. `null`: any."""
    remote_age_ms: Count | None = None
    """How long files of other servers are kept, from where they can be fetched again; `null`: for ever."""
    remote_unused_ms: Count | None = 7_776_000_000
    """How long files of other servers that nobody asks for are kept; `null`: for ever."""
    remote_total_bytes_max: Count | None = None
    """The space of all files of other servers; `null`: any."""
    url_previews: UrlPreviewsConfig = UrlPreviewsConfig()


@dataclass(frozen=True, slots=True)
class PresenceConfig:
    """Who is online."""

    enabled: bool = True
    """Whether presence is kept and shown."""
    idle_ms: Count = 300_000
    """How long after their last activity users become unavailable."""
    offline_ms: Count = 30_000
    """How long after their last sync users go offline."""


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """Bounds on what one request may take."""

    sync_timeout_ms_max: Annotated[int, Range(0, 600_000)] = 60_000
    """The longest that a sync waits for something new, whatever the client asks."""
    request_timeout_ms: Count = 120_000
    """How long a client may take to send its request."""
    keep_alive_ms: Count = 75_000
    """How long an idle connection is kept."""
    shutdown_timeout_ms: Annotated[int, Range(0, 600_000)] = 15_000
    """How long requests may still run after SIGTERM."""


@dataclass(frozen=True, slots=True)
class RoomsConfig:
    """New rooms."""

    default_room_version: Literal["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"] = "12"
    """The version of rooms whose creator asks for none."""
    encryption_default: Literal["off", "invite", "all"] = "off"
    """Which new rooms are encrypted though nobody asked: none, those by invitation, or all."""


@dataclass(frozen=True, slots=True)
class DirectoryConfig:
    """The directory of public rooms."""

    publish: Literal["anyone", "admins"] = "anyone"
    """Who may publish the rooms they moderate."""
    search_without_login: bool = True
    """Whether the directory can be read without an account."""
    search_by_servers: bool = True
    """Whether other servers can read it."""


@dataclass(frozen=True, slots=True)
class ProfileConfig:
    """Names and pictures of users."""

    lookup_without_login: bool = True
    """Whether profiles can be read without an account."""
    lookup_only_in_shared_rooms: bool = False
    """Whether users, and other servers, see the profiles only of those with whom they share a room."""
    lookup_by_servers: bool = True
    """Whether other servers can read profiles."""
    displayname_changes: bool = True
    """Whether users can change their display name."""
    avatar_url_changes: bool = True
    """Whether users can change their picture."""


@dataclass(frozen=True, slots=True)
class UserDirectoryConfig:
    """Searching users."""

    enabled: bool = True
    """Whether users can be searched."""
    search_all_users: bool = False
    """Whether all local users are found, and not only those in public or shared rooms."""


@dataclass(frozen=True, slots=True)
class SupportContactConfig:
    """Somebody who can be reached about this server."""

    role: Literal["m.role.admin", "m.role.security", "m.role.dpo"]
    """What for."""
    matrix_id: str | None = None
    """A Matrix user."""
    email_address: str | None = None
    """An e-mail address."""


@dataclass(frozen=True, slots=True)
class WellKnownConfig:
    """What `/.well-known/matrix/*` answers."""

    client_base_url: HttpUrl | None = None
    """Where clients find this server; `null`: `public_baseurl`."""
    server: str | None = None
    """Where other servers find this server, `host:port`; `null`: nothing is said."""
    support_contacts: tuple[SupportContactConfig, ...] = ()
    """Contacts: `[{role: m.role.admin, matrix_id: "@admin:example.org"}]`."""
    support_page: HttpUrl | None = None
    """A page that helps."""


@dataclass(frozen=True, slots=True)
class LoggingConfig:
    """What is told on standard output. Never tokens, passwords, keys or messages."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """How much."""
    format: Literal["json", "console"] = "json"
    """`json` for machines, `console` for people."""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings."""

    server_name: ServerName
    """The part after the colon of this server's user and room names. It can never be changed."""
    public_baseurl: HttpUrl | None = None
    """Where clients reach this server; `null`: `https://` and the server's name."""
    data_dir: Path = Path("data")
    """The folder for the signing key, media and the embedded PostgreSQL. Relative paths, here and below, start from the
    folder of this file."""
    listeners: tuple[ListenerConfig, ...] = (
        ListenerConfig(port=8008, resources=("client", "federation", "media", "admin", "metrics", "health")),
    )
    """The ports to listen on, each with what it serves. One for other servers, without a reverse proxy:
    `{port: 8448, bind_addresses: [0.0.0.0], resources: [federation, media], tls: {…}}`."""
    database: DatabaseConfig = DatabaseConfig()
    redis: RedisConfig = RedisConfig()
    workers: Annotated[int, Range(1, 64)] = 1
    """How many processes share the work, about one for each processor; more than 1 needs `redis.url`."""
    registration: RegistrationConfig = RegistrationConfig()
    passwords: PasswordsConfig = PasswordsConfig()
    sessions: SessionsConfig = SessionsConfig()
    federation: FederationConfig = FederationConfig()
    app_service_config_files: tuple[ExistingFile, ...] = ()
    """The registration files of application services (bridges, bots)."""
    rate_limits: RateLimitsConfig = RateLimitsConfig()
    presence: PresenceConfig = PresenceConfig()
    media: MediaConfig = MediaConfig()
    rooms: RoomsConfig = RoomsConfig()
    directory: DirectoryConfig = DirectoryConfig()
    profile: ProfileConfig = ProfileConfig()
    user_directory: UserDirectoryConfig = UserDirectoryConfig()
    well_known: WellKnownConfig = WellKnownConfig()
    limits: LimitsConfig = LimitsConfig()
    logging: LoggingConfig = LoggingConfig()

    @property
    def base_url(self) -> str:
        """`public_baseurl` or what stands in for it, always with a slash at its end."""
        return (self.public_baseurl or f"https://{self.server_name}").rstrip("/") + "/"
