"""The example configuration and docs/configuration.md, both made from `schema/` and the texts below its fields."""

import ast
import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import yaml

from homeserver.config.convert import bare_type, describe_range, field_types, has_default, is_secret
from homeserver.config.schema import Config
from homeserver.config.values import IpNetwork, Range
from homeserver.core.ids import ServerName

WIDTH: Final = 110

_YAML_HEAD: Final = """\
# The configuration of a Heliograph server. Lines that begin with `# ` and a key show a default: remove the `# ` to
# change it. Times may be written as 30s, 5m, 7d and sizes as 50M. Secrets can stand in files (`url_file` in place of
# `url`), and every single value can come from the environment (HELIOGRAPH_DATABASE_URL for `url` under `database`).
# `homeserver check-config` tells what is wrong with this file.
"""

_MARKDOWN_HEAD: Final = """\
# Configuration

<!-- Made from homeserver/config/schema/ by `make docs`. -->

The server reads `config.yaml` (`-c` or `HELIOGRAPH_CONFIG` name another file). `homeserver generate-config` writes one
with every key, and `homeserver check-config` tells all mistakes in one. Only `server_name` is required. A key that does
not exist is refused.

- Times (`…_ms`) are milliseconds or texts such as `30s`, `5m`, `12h`, `7d`; sizes (`…_bytes`) are bytes or texts such
  as `50M`.
- Relative paths start from the folder of the configuration file.
- Every single value can come from the environment, which wins over the file: `HELIOGRAPH_`, then the key's path in
  upper case with underscores, for example `HELIOGRAPH_DATABASE_URL` or `HELIOGRAPH_WORKERS`. Lists are set in the file
  only.
- A **secret** can stand in a file of its own: `url_file` in place of `url`, or `HELIOGRAPH_DATABASE_URL_FILE`.
"""

DEFAULTS: Final = Config(server_name=ServerName.parse("example.org"))

# What the generated file sets, though it is the default: what most operators look at first.
_SHOWN: Final = (
    "listeners",
    "database.url",
    "workers",
    "registration.enabled",
    "federation.enabled",
    "rate_limits.enabled",
    "presence.enabled",
)

_DEVELOPMENT: Final[Mapping[str, Any]] = {
    "public_baseurl": "http://localhost:8008/",
    "registration.enabled": True,
    "registration.require_verification": False,
    "rate_limits.enabled": False,
    "logging.format": "console",
}


def example_yaml(*, server_name: str, data_dir: str, development: bool = False) -> str:
    """A commented `config.yaml` with every key.

    Args:
        server_name: the name of the server.
        data_dir: the folder for its data.
        development: open registration, no rate limits: for trying out on one's own machine.
    """
    given: dict[str, Any] = dict.fromkeys(_SHOWN)
    given |= {"server_name": server_name, "data_dir": data_dir}
    if development:
        given |= _DEVELOPMENT
    return "\n".join([_YAML_HEAD.rstrip(), *_yaml_section(Config, DEFAULTS, "", given)]) + "\n"


def _yaml_section(kind: type, defaults: Any, path: str, given: Mapping[str, Any]) -> Iterator[str]:
    indent = "  " * path.count(".")
    for number, field in enumerate(dataclasses.fields(kind)):
        key_path = f"{path}{field.name}"
        default = getattr(defaults, field.name)
        hint = bare_type(field_types(kind)[field.name])
        if number or not path:
            yield ""
        if _is_section(kind, field):
            yield from _comment(inspect.getdoc(hint) or "", indent)
            yield f"{indent}{field.name}:"
            yield from _yaml_section(hint, default, f"{key_path}.", given)
            continue
        yield from _comment(_documentation(kind)[field.name], indent)
        value = given.get(key_path)
        lines = _yaml_value(field.name, _plain(default if value is None else value))
        yield from (f"{indent}{'' if key_path in given else '# '}{line}" for line in lines)


def _yaml_value(key: str, value: Any) -> list[str]:
    """A key and its value, on one line if that fits."""
    line = _flow({key: value})[1:-1]
    if len(line) <= WIDTH:
        return [line]
    assert isinstance(value, list), f"the default of {key} is too long for a line"
    return [f"{key}:", *(f"  - {_flow(entry)}" for entry in value)]


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.strip().removesuffix("...").strip()


def reference_markdown() -> str:
    """docs/configuration.md: every key, its type, default and meaning."""
    return "\n".join([_MARKDOWN_HEAD, "## The top level", "", *_markdown_section(Config, "")]) + "\n"


def _markdown_section(kind: type, path: str) -> Iterator[str]:
    """The keys of a section, then the sections in it."""
    sections = [field for field in dataclasses.fields(kind) if _is_section(kind, field)]
    for field in dataclasses.fields(kind):
        if field not in sections:
            yield from _entry(kind, field, "")
    for field in sections:
        inner = field_types(kind)[field.name]
        yield from ["", f"## {path}{field.name}", "", inspect.getdoc(inner) or "", ""]
        yield from _markdown_section(inner, f"{path}{field.name}.")


def _entry(kind: type, field: "dataclasses.Field[Any]", indent: str) -> Iterator[str]:
    hint = field_types(kind)[field.name]
    facts = _type_words(hint, field.name)
    if not has_default(field):
        facts += ", required"
    elif field.default is not None and field.default is not dataclasses.MISSING:
        facts += f", default {_markdown_value(_plain(field.default))}"
    text = f"{indent}- **`{field.name}`** ({facts}): {_documentation(kind)[field.name]}"
    yield from textwrap.wrap(text, 120, subsequent_indent=indent + "  ", break_long_words=False, break_on_hyphens=False)
    inner = _inner(hint)
    if inner is not None and not isinstance(field.default, inner):
        for inner_field in dataclasses.fields(inner):
            yield from _entry(inner, inner_field, indent + "  ")


def _inner(hint: Any) -> type | None:
    """The dataclass behind a field: its own type, or that of its list's entries."""
    found = bare_type(hint)
    if get_origin(found) is tuple:
        found = bare_type(get_args(found)[0])
    return found if dataclasses.is_dataclass(found) and isinstance(found, type) else None


def _markdown_value(value: Any) -> str:
    if isinstance(value, list) and len(value) > 6:
        return "all private and reserved ranges"
    return f"`{_flow(value)}`"


def _type_words(hint: Any, name: str) -> str:
    kind = bare_type(hint)
    restrictions = [part for part in get_args(hint) if isinstance(part, Range)] if get_origin(hint) is Annotated else []
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is tuple:
        words = _type_words(get_args(kind)[0], "")
        return "list of " + _PLURALS.get(words, words)
    if get_origin(kind) is Mapping:
        return "mapping"
    words = "secret text" if is_secret(hint) else _NAMES.get(kind, "mapping")
    if name.endswith(("_ms", "_ms_max")):
        words = "time in milliseconds"
    if restrictions and (restrictions[0].maximum or 0) < 2**53 - 1:
        words += f" {describe_range(restrictions[0])}"
    return words


_NAMES: Final[Mapping[Any, str]] = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    ServerName: "server name",
    IpNetwork: "range of addresses",
}


_PLURALS: Final = {
    "text": "texts",
    "path": "paths",
    "mapping": "mappings",
    "range of addresses": "ranges of addresses",
}


def _is_section(kind: type, field: "dataclasses.Field[Any]") -> bool:
    """Whether a field is a section of its own: it holds a dataclass and has no text but that of the class."""
    return dataclasses.is_dataclass(bare_type(field_types(kind)[field.name])) and field.name not in _documentation(kind)


@functools.cache
def _documentation(kind: type) -> Mapping[str, str]:
    """The text below each field of a class, on one line."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    texts = {}
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        120,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _plain(value: Any) -> Any:
    """A setting as YAML can write it; what is left out stands for a default."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        settings = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        defaults = {field.name: field.default for field in dataclasses.fields(value)}
        return {
            name: _plain(setting)
            for name, setting in settings.items()
            if setting not in (None, ()) or defaults[name] != setting
        }
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, str | Path | IpNetwork):
        return str(value)
    return value
