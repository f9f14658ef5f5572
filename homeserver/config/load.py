"""Reads the configuration: the file, the environment over it, and what must fit together.

All mistakes are told at once, each with its path and, for a key that does not exist, the nearest one that does.
"""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import yaml

from homeserver.config.convert import Converter, Wrong
from homeserver.config.environment import apply_environment
from homeserver.config.schema import Config

CONFIG_BYTES_MAX: Final = 1024 * 1024


class ConfigError(Exception):
    """The configuration cannot be used.

    Attributes:
        mistakes: what is wrong, each with its path.
    """

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


def load_config(file: Path, environment: Mapping[str, str]) -> Config:
    """Reads a configuration file, whose relative paths start from its folder.

    Args:
        file: the file, YAML.
        environment: the variables `HELIOGRAPH_…` of it are settings, which replace those of the file.

    Raises:
        ConfigError: it cannot be read, or holds mistakes.
    """
    return parse_config(read_config_file(file), folder=file.absolute().parent, environment=environment)


def read_config_file(file: Path) -> str:
    """The text of a configuration file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        if file.stat().st_size > CONFIG_BYTES_MAX:
            raise ConfigError([f"{file} is too large for a configuration"])
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"cannot read {file}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file} is not UTF-8"]) from error


def parse_config(text: str, *, folder: Path, environment: Mapping[str, str]) -> Config:
    """Reads a configuration from its text; otherwise as `load_config`."""
    try:
        settings = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 (it extends the safe loader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_describe(error)]) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError([f"is not YAML: {error}"]) from error
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        raise ConfigError(["the configuration must be a mapping of keys to values"])
    converter = Converter(folder)
    converter.mistakes += apply_environment(settings, environment)
    try:
        config = converter.section(Config, settings)
    except Wrong:
        raise ConfigError(converter.mistakes) from None
    mistakes = [*converter.mistakes, *_contradictions(config)]
    if mistakes:
        raise ConfigError(mistakes)
    return config


class _UniqueKeys(yaml.SafeLoader):
    """The safe loader, but a key that stands twice in a mapping is a mistake; YAML would drop the first one."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise yaml.MarkedYAMLError(problem="a key must be a text", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key} stands there twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _describe(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return f"{place}{error.problem or error.context or 'is not YAML'}"


def _contradictions(config: Config) -> Iterator[str]:
    """Settings that are right by themselves but not together."""
    if config.workers > 1 and config.redis.url is None:
        yield "redis.url: is needed when workers is more than 1"
    if config.database.pool_size_min > config.database.pool_size_max:
        yield "database.pool_size_min: must not be more than database.pool_size_max"
    if not config.listeners:
        yield "listeners: must not be empty"
    yield from _shared_ports(config)
    if config.media.storage == "s3":
        yield from s3_mistakes(config)
    registration = config.registration
    if registration.enabled and registration.require_verification and not registration.requires_token:
        yield (
            "registration.require_verification: nothing is set up that verifies; set registration.requires_token, or "
            "require_verification to false if everybody may make any number of accounts"
        )


def s3_mistakes(config: Config) -> Iterator[str]:
    """Why media cannot be kept in a bucket as it is configured."""
    if find_spec("aiobotocore") is None:
        yield "media.storage: s3 needs more than is installed; install it by: pip install 'heliograph[s3]'"
    if config.media.s3.bucket is None:
        yield "media.s3.bucket: is needed where media are kept in S3"
    if (config.media.s3.access_key_id is None) != (config.media.s3.secret_access_key is None):
        yield "media.s3.access_key_id: is needed together with media.s3.secret_access_key, or neither of them"


def _shared_ports(config: Config) -> Iterator[str]:
    taken: dict[tuple[str, int], int] = {}
    for index, listener in enumerate(config.listeners):
        if not listener.bind_addresses:
            yield f"listeners[{index}].bind_addresses: must not be empty"
        if not listener.resources:
            yield f"listeners[{index}].resources: must not be empty"
        for address in listener.bind_addresses:
            first = taken.setdefault((address, listener.port), index)
            if listener.port and first != index:
                yield f"listeners[{index}].port: {address} port {listener.port} is taken by listeners[{first}]"
