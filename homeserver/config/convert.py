"""From what YAML gives to the classes of `schema/`, with every mistake noted under its path."""

import dataclasses
import difflib
import ipaddress
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from homeserver.config.values import IpNetwork, MustExist, Range, Secret, Url
from homeserver.core.errors import InvalidParam
from homeserver.core.ids import ServerName

Section = TypeVar("Section")

_UNITS: Final[Mapping[str, Mapping[str, int]]] = {
    "_ms": {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000},
    "_bytes": {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4},
}
_QUANTITY: Final = re.compile(r"(\d{1,15})([A-Za-z]{1,2})")
_SECRET_FILE_BYTES_MAX: Final = 65_536


class Wrong(Exception):
    """A value cannot be used; the mistake has been noted."""


class Converter:
    """Converts one configuration.

    Attributes:
        mistakes: what is wrong, each with its path, in the order of the file.
    """

    def __init__(self, folder: Path) -> None:
        """Takes the folder that relative paths start from."""
        self._folder = folder
        self.mistakes: list[str] = []

    def section(self, kind: type[Section], value: Any, path: str = "") -> Section:
        """A section from its mapping; an empty one (nothing below its key) has only defaults.

        Raises:
            Wrong: it holds mistakes.
        """
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self._wrong(path, f"must be a mapping, not {_named(value)}")
        hints = field_types(kind)
        self._refuse_unknown(value, hints, path)
        found: dict[str, Any] = {}
        complete = True
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            key_path = _join(path, field.name)
            try:
                if field.name in value:
                    found[field.name] = self._value(hints[field.name], value[field.name], key_path)
                elif f"{field.name}_file" in value and is_secret(hints[field.name]):
                    text = self._secret_from_file(value[f"{field.name}_file"], f"{key_path}_file")
                    found[field.name] = self._value(hints[field.name], text, key_path)
                elif not has_default(field):
                    raise self._wrong(key_path, "is required")
                elif isinstance(field.default, Path):
                    found[field.name] = self._folder / field.default
            except Wrong:
                complete = False
        if not complete:
            raise Wrong
        return kind(**found)

    def _refuse_unknown(self, value: Mapping[Any, Any], hints: Mapping[str, Any], path: str) -> None:
        files = [f"{name}_file" for name, hint in hints.items() if is_secret(hint)]
        for key in value:
            if key not in hints and key not in files:
                self._wrong(_join(path, str(key)), "unknown key" + nearest(str(key), [*hints, *files]))
        for name in files:
            if name in value and value.get(name.removesuffix("_file")) is not None:
                self._wrong(_join(path, name), f"cannot stand beside {name.removesuffix('_file')}")

    def _value(self, hint: Any, value: Any, path: str) -> Any:
        origin, arguments = get_origin(hint), get_args(hint)
        if hint == IpNetwork:
            return self._network(value, path)
        if origin is Annotated:
            return self._restricted(self._value(arguments[0], value, path), arguments[1:], path)
        if origin in (Union, types.UnionType):
            if value is None:
                return None
            (present,) = (argument for argument in arguments if argument is not type(None))
            return self._value(present, value, path)
        if origin is Literal:
            return self._choice(value, arguments, path)
        if origin is tuple:
            return self._list(arguments[0], value, path)
        if origin is Mapping:
            return self._mapping(arguments[1], value, path)
        if dataclasses.is_dataclass(hint):
            return self.section(hint, value, path)  # type: ignore[arg-type]
        return self._plain(hint, value, path)

    def _plain(self, kind: type, value: Any, path: str) -> Any:
        if kind is bool and isinstance(value, bool):
            return value
        if kind is int:
            return self._integer(value, path)
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str) and issubclass(kind, str | Path):
            return self._text(kind, value, path)
        raise self._wrong(path, f"must be {_WORDS[kind]}, not {_named(value)}")

    def _text(self, kind: type, value: str, path: str) -> Any:
        if "\0" in value or not value:
            raise self._wrong(path, "must not be empty" if not value else "must not hold a NUL")
        if kind is Path:
            return self._folder / Path(value).expanduser()
        if kind is ServerName:
            try:
                return ServerName.parse(value)
            except InvalidParam as error:
                raise self._wrong(path, error.message) from error
        return kind(value)

    def _integer(self, value: Any, path: str) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        name = path.removesuffix("_max")
        for suffix, units in _UNITS.items():
            if name.endswith(suffix):
                quantity = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
                if quantity is not None and quantity[2] in units:
                    return int(quantity[1]) * units[quantity[2]]
                raise self._wrong(
                    path, f"must be an integer, or one with a unit ({', '.join(units)}), not {_named(value)}"
                )
        raise self._wrong(path, f"must be an integer, not {_named(value)}")

    def _network(self, value: Any, path: str) -> Any:
        if isinstance(value, str):
            try:
                return ipaddress.ip_network(value)
            except ValueError as error:
                raise self._wrong(path, str(error)) from error
        raise self._wrong(path, f"must be a range of addresses such as 10.0.0.0/8, not {_named(value)}")

    def _choice(self, value: Any, choices: Sequence[str], path: str) -> Any:
        if value in choices:
            return value
        if value is False and "off" in choices:  # YAML reads a bare `off` as false
            return "off"
        hint = nearest(value, choices) if isinstance(value, str) else ""
        raise self._wrong(path, f"must be one of {', '.join(choices)}, not {_named(value)}{hint}")

    def _list(self, hint: Any, value: Any, path: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise self._wrong(path, f"must be a list, not {_named(value)}")
        return tuple(self._all((hint, entry, f"{path}[{index}]") for index, entry in enumerate(value)))

    def _mapping(self, hint: Any, value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise self._wrong(path, f"must be a mapping, not {_named(value)}")
        keys = [str(key) for key in value]
        return dict(zip(keys, self._all((hint, value[key], _join(path, str(key))) for key in value), strict=True))

    def _all(self, entries: Iterable[tuple[Any, Any, str]]) -> list[Any]:
        """Converts every entry even if an earlier one is wrong, so that all mistakes are found."""
        found, complete = [], True
        for hint, value, path in entries:
            try:
                found.append(self._value(hint, value, path))
            except Wrong:
                complete = False
        if not complete:
            raise Wrong
        return found

    def _restricted(self, value: Any, restrictions: Sequence[Any], path: str) -> Any:
        for restriction in restrictions:
            match restriction:
                case Range(minimum, maximum):
                    # Said so that NaN is refused too.
                    if not ((minimum is None or value >= minimum) and (maximum is None or value <= maximum)):
                        raise self._wrong(path, f"must be {describe_range(restriction)}, not {value}")
                case MustExist():
                    if not value.is_file():
                        raise self._wrong(path, f"there is no file {value}")
                case Url(schemes, words):
                    if value not in words and not _is_url(value, schemes):
                        expected = " or ".join([*words, *(f"{scheme}://…" for scheme in schemes)])
                        raise self._wrong(path, f"must be {expected}")
        return value

    def _secret_from_file(self, value: Any, path: str) -> str:
        file = self._plain(Path, value, path)
        try:
            if file.stat().st_size > _SECRET_FILE_BYTES_MAX:
                raise self._wrong(path, f"{file} is too large for a secret")
            text = str(file.read_text(encoding="utf-8")).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise self._wrong(path, f"cannot read {file}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
        if not text:
            raise self._wrong(path, f"{file} is empty")
        return text

    def _wrong(self, path: str, message: str) -> Wrong:
        self.mistakes.append(f"{path}: {message}" if path else message)
        return Wrong()


_WORDS: Final[Mapping[type, str]] = {
    bool: "true or false",
    float: "a number",
    str: "a text",
    Secret: "a text",
    ServerName: "a server name",
    Path: "a path",
}


def field_types(kind: type) -> dict[str, Any]:
    """The types of a section's fields, with what is said about them."""
    return get_type_hints(kind, include_extras=True)


def bare_type(hint: Any) -> Any:
    """A field's type without what is said about it, and without None."""
    if get_origin(hint) is Annotated:
        return bare_type(get_args(hint)[0])
    if hint != IpNetwork and get_origin(hint) in (Union, types.UnionType):
        (present,) = (argument for argument in get_args(hint) if argument is not type(None))
        return bare_type(present)
    return hint


def is_secret(hint: Any) -> bool:
    """Whether a field's type is a secret, which may also stand in a file."""
    return bare_type(hint) is Secret


def has_default(field: "dataclasses.Field[Any]") -> bool:
    """Whether a field may be left out."""
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def describe_range(limits: Range) -> str:
    """A range in words."""
    if limits.minimum is None or limits.maximum is None:
        return f"at least {limits.minimum}" if limits.maximum is None else f"at most {limits.maximum}"
    return f"between {limits.minimum} and {limits.maximum}"


def nearest(word: str, known: Iterable[str]) -> str:
    """A question that names the known word most like this one, or nothing."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {found[0]}?" if found else ""


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _named(value: Any) -> str:
    if isinstance(value, str):
        return "a text" if len(value) > 40 else f"'{value}'"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return {None: "nothing", True: "true", False: "false"}.get(value, str(value))


def _is_url(text: str, schemes: Sequence[str]) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.netloc or parts.path) and port != 0
