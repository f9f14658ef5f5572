"""Settings from the environment: `HELIOGRAPH_DATABASE_URL` replaces `database.url`, and so on for every single value.

A secret's variable may end in `_FILE` to name a file with it. Lists are set in the configuration file only.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final, get_origin

import yaml

from homeserver.config.convert import bare_type, field_types, is_secret, nearest
from homeserver.config.schema import Config

PREFIX: Final = "HELIOGRAPH_"
CONFIG_VARIABLE: Final = "HELIOGRAPH_CONFIG"
"""Names the configuration file where the command line does not."""


def variables() -> dict[str, tuple[str, ...]]:
    """Each variable that is a setting, with the setting's path."""
    return {PREFIX + "_".join(path).upper(): path for path, _ in _leaves(Config, ())}


def apply_environment(settings: dict[str, Any], environment: Mapping[str, str]) -> list[str]:
    """Puts the environment's settings into those of the file.

    Returns:
        The mistakes in them.
    """
    mistakes = []
    for path, hint in _leaves(Config, ()):
        name = PREFIX + "_".join(path).upper()
        text = environment.get(name)
        if text is None:
            continue
        try:
            # A text is taken as it stands, even if YAML would see a number in it.
            value = yaml.safe_load(text) if bare_type(hint) in (int, float, bool) else text
        except yaml.YAMLError:
            mistakes.append(f"{name}: cannot be read")
            continue
        section = _section(settings, path[:-1])
        if section is not None:
            section.pop(f"{path[-1]}_file", None)
            section.pop(path[-1].removesuffix("_file"), None)
            section[path[-1]] = value
    return mistakes


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """The variables that look like settings and are none, each with the one it may have meant."""
    known = [*variables(), CONFIG_VARIABLE]
    return [name + nearest(name, known) for name in environment if name.startswith(PREFIX) and name not in known]


def _leaves(kind: type, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, hint in field_types(kind).items():
        path = (*above, name)
        if dataclasses.is_dataclass(hint):
            yield from _leaves(hint, path)  # type: ignore[arg-type]
        elif get_origin(hint) not in (tuple, Mapping):
            yield path, hint
            if is_secret(hint):
                yield (*above, f"{name}_file"), hint


def _section(settings: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    """The mapping at a path, made if it is not there; None if something else is there, a mistake of the file."""
    section = settings
    for key in path:
        if section.get(key) is None:
            section[key] = {}
        section = section[key]
        if not isinstance(section, dict):
            return None
    return section
