"""The header `Content-Disposition`: whether a browser shows or saves a file, and its name.

https://www.rfc-editor.org/rfc/rfc6266
https://www.rfc-editor.org/rfc/rfc8187
"""

import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from homeserver.core.media_types import is_inline

FILE_NAME_CHARACTERS_MAX: Final = 512

# What stands in quotes without being taken for something else by any reader.
_QUOTABLE: Final = re.compile(r"[ !#$&'()+,\-.0-9:;=@A-Z\[\]^_`a-z{}~]+")
_UNRESERVED: Final = "!#$&+-.^_`|~"
_PARAMETER: Final = re.compile(
    r';[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))[ \t]*'
)
_EXTENDED: Final = re.compile(r"([A-Za-z0-9-]+)'[^']*'(.*)")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def content_disposition(content_type: str, file_name: str | None) -> str:
    """The header of a file: `inline` for the types that browsers may show, else `attachment`."""
    disposition = "inline" if is_inline(content_type) else "attachment"
    if not file_name:
        return disposition
    if _QUOTABLE.fullmatch(file_name):
        return f'{disposition}; filename="{file_name}"'
    encoded = quote(file_name, safe=_UNRESERVED, errors="replace")
    return f"{disposition}; filename*=utf-8''{encoded}"


def file_name_of(header: str | None) -> str | None:
    """The name in a header, `filename*` before `filename`; None if there is none that can be used."""
    if header is None:
        return None
    found: dict[str, str] = {}
    _, semicolon, rest = header.partition(";")
    position, text = 0, semicolon + rest
    while (match := _PARAMETER.match(text, position)) is not None:
        name, quoted, plain = match.groups()
        value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        found.setdefault(name.lower(), value)
        position = match.end()
    return clean_file_name(_extended(found.get("filename*")) or _plain(found.get("filename")))


def clean_file_name(name: str | None) -> str | None:
    """A name without what cannot be stored or sent, and not too long; None if nothing is left."""
    if name is None:
        return None
    return _CONTROL.sub("", name)[:FILE_NAME_CHARACTERS_MAX] or None


def _extended(value: str | None) -> str | None:
    match = _EXTENDED.fullmatch(value or "")
    if match is None or match[1].lower() not in ("utf-8", "iso-8859-1"):
        return None
    try:
        return unquote_to_bytes(match[2]).decode(match[1])
    except UnicodeDecodeError:
        return None


def _plain(value: str | None) -> str | None:
    """A name outside of the grammar is in UTF-8 more often than not; headers come as Latin-1."""
    if value is None:
        return None
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value
