"""New rooms, and the directory of public ones."""

from dataclasses import dataclass
from typing import Literal


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
