"""Every setting of the server: one frozen dataclass for each section of `config.yaml`, by subject; the root is here.

The text below each field is its documentation: `reference.py` makes the example configuration and docs/configuration.md
of it. `load.py` fills these classes. A field's name is its key; `_ms` and `_bytes` say the unit, and such fields may be
written as texts too (`30s`, `5m`, `7d`; `50M`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from homeserver.config.schema.accounts import (
    PasswordPolicyConfig,
    PasswordsConfig,
    RegistrationConfig,
    SessionsConfig,
    TermsConfig,
)
from homeserver.config.schema.database import CachesConfig, DatabaseConfig, RedisConfig
from homeserver.config.schema.federation import PRIVATE_RANGES, FederationConfig, KeyServerConfig
from homeserver.config.schema.limits import ByteRateConfig, LimitsConfig, RateConfig, RateLimitsConfig
from homeserver.config.schema.listeners import ListenerConfig, Resource, TlsConfig
from homeserver.config.schema.logging import LoggingConfig
from homeserver.config.schema.media import MediaConfig, S3Config, UrlPreviewsConfig
from homeserver.config.schema.rooms import DirectoryConfig, RoomsConfig
from homeserver.config.schema.users import PresenceConfig, ProfileConfig, UserDirectoryConfig
from homeserver.config.schema.well_known import SupportContactConfig, WellKnownConfig
from homeserver.config.values import ExistingFile, HttpUrl, Range
from homeserver.core.ids import ServerName

__all__ = [
    "PRIVATE_RANGES",
    "ByteRateConfig",
    "CachesConfig",
    "Config",
    "DatabaseConfig",
    "DirectoryConfig",
    "FederationConfig",
    "KeyServerConfig",
    "LimitsConfig",
    "ListenerConfig",
    "LoggingConfig",
    "MediaConfig",
    "PasswordPolicyConfig",
    "PasswordsConfig",
    "PresenceConfig",
    "ProfileConfig",
    "RateConfig",
    "RateLimitsConfig",
    "RedisConfig",
    "RegistrationConfig",
    "Resource",
    "RoomsConfig",
    "S3Config",
    "SessionsConfig",
    "SupportContactConfig",
    "TermsConfig",
    "TlsConfig",
    "UrlPreviewsConfig",
    "UserDirectoryConfig",
    "WellKnownConfig",
]


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
    caches: CachesConfig = CachesConfig()
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
