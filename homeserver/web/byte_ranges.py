"""Parts of files, and files that the client has already: `Range`, `If-Range` and `If-None-Match`.

https://www.rfc-editor.org/rfc/rfc9110#section-14
https://www.rfc-editor.org/rfc/rfc9110#section-13
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_RANGE: Final = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,19})-(\d{0,19})[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A part of a file."""

    start: int
    length: int

    def content_range(self, size_bytes: int) -> str:
        """The header that says which part of a file of this size it is."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size_bytes}"


class NoSuchRange(Exception):
    """The file has no such part (416)."""


def wanted_range(headers: Mapping[str, str], *, size_bytes: int, etag: str) -> ByteRange | None:
    """The part of a file that a request asks for.

    Args:
        headers: of the request, names in lower case.
        size_bytes: of the whole file.
        etag: of the file as it is now, with quotes.

    Returns:
        None for all of it; also where several parts are asked for, or the file is not the one the client knows.

    Raises:
        NoSuchRange: the file ends before it.
    """
    match = _RANGE.fullmatch(headers.get("range", ""))
    if match is None or not (match[1] or match[2]):
        return None
    if headers.get("if-range", etag) != etag:
        return None
    if not match[1]:
        length = min(int(match[2]), size_bytes)
        if not length:
            raise NoSuchRange
        return ByteRange(size_bytes - length, length)
    start = int(match[1])
    end = min(int(match[2]), size_bytes - 1) if match[2] else size_bytes - 1
    if match[2] and int(match[2]) < start:
        return None
    if start >= size_bytes:
        raise NoSuchRange
    return ByteRange(start, end - start + 1)


def is_known(headers: Mapping[str, str], etag: str) -> bool:
    """Whether the client says that it has this version of a file already."""
    known = headers.get("if-none-match")
    if known is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in known.split(",")]
    return "*" in tags or etag in tags
