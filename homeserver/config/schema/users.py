"""What users see of each other: presence, profiles, the directory of users."""

from dataclasses import dataclass

from homeserver.config.values import Count


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
