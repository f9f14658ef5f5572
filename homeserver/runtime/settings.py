"""The settings of a server that runs: read at its start, and anew when it is asked to take them up."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from homeserver.config.load import ConfigError, parse_config, read_config_file
from homeserver.config.schema import Config
from homeserver.runtime.listeners import Listener, ListenError, bind_all

logger = structlog.get_logger()

EMBEDDED: Final = "embedded"


@dataclass(frozen=True, slots=True)
class Settings:
    """A configuration, and the text of the file that it was read from."""

    text: str
    config: Config


def read_settings(file: Path, environment: Mapping[str, str]) -> Settings:
    """The settings as they stand in the file now, the environment over them.

    Raises:
        ConfigError: they cannot be read, or hold mistakes.
    """
    text = read_config_file(file)
    return Settings(text, parse_config(text, folder=file.absolute().parent, environment=environment))


def take_up_settings(
    file: Path, environment: Mapping[str, str], *, current: Config, listeners: tuple[Listener, ...]
) -> tuple[Settings, tuple[Listener, ...]] | None:
    """Reads the settings anew, and binds what they listen on; None, with the reason logged, if that cannot be used.

    Args:
        file: the configuration.
        environment: the settings over it.
        current: by what the server runs, as it was read.
        listeners: what it listens on; sockets for the same addresses are duplicates of these.
    """
    try:
        settings = read_settings(file, environment)
        changed = list(_fixed_that_differ(current, settings.config))
        if changed:
            raise ConfigError([f"{path}: takes a restart" for path in changed])
        return settings, bind_all(settings.config.listeners, held=listeners)
    except ConfigError as error:
        logger.error("the configuration cannot be taken up: nothing changes", mistakes=error.mistakes)
    except ListenError as error:
        logger.error("the configuration cannot be taken up: nothing changes", mistakes=[str(error)])
    return None


def _fixed_that_differ(current: Config, new: Config) -> Iterator[str]:
    """What cannot change while the server runs."""
    if new.server_name != current.server_name:
        yield "server_name"
    if new.data_dir != current.data_dir:
        yield "data_dir"
    if (new.database.url == EMBEDDED) != (current.database.url == EMBEDDED):
        yield "database.url"
