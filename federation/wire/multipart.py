"""The body of media between servers: `multipart/mixed` of two parts, JSON and the file or where it is.

https://spec.matrix.org/v1.19/server-server-api/#content-repository
https://www.rfc-editor.org/rfc/rfc2046#section-5.1
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

HEAD_BYTES_MAX: Final = 64 * 1024
"""How large everything before the file may be: the JSON, the boundaries and the headers of both parts."""

_BOUNDARY: Final = re.compile(
    r"""multipart/mixed\s*;(?:.*;)?\s*boundary=(?:"([^"\\]{1,70})"|([^\s;"]{1,70}))\s*(?:;.*)?""",
    re.IGNORECASE | re.DOTALL,
)


class WrongMultipart(Exception):
    """A body is not of this form."""


def multipart_head(boundary: str, headers: Mapping[str, str]) -> bytes:
    """What stands before the file: the JSON part, and the headers of the file's."""
    lines = [f"--{boundary}", "Content-Type: application/json", "", "{}", f"--{boundary}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def multipart_tail(boundary: str) -> bytes:
    """What stands after the file."""
    return f"\r\n--{boundary}--\r\n".encode("latin-1")


def boundary_of(content_type: str) -> str:
    """The boundary that a `Content-Type` names.

    Raises:
        WrongMultipart: it is not of this form.
    """
    match = _BOUNDARY.fullmatch(content_type.strip())
    if match is None:
        raise WrongMultipart("The answer is no multipart/mixed with a boundary")
    return str(match[1] or match[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """The second part: its headers, names in lower case, and its bytes as they come."""

    headers: Mapping[str, str]
    chunks: AsyncGenerator[bytes, None]


async def read_multipart(chunks: AsyncIterator[bytes], boundary: str) -> FilePart:
    """Reads up to the file; the rest is read by the part's iterator, and never held as a whole.

    Raises:
        WrongMultipart: it is not of this form, or what precedes the file is too large. The iterator raises it where the
            body ends too early, or does not end with the file.
    """
    delimiter = b"\r\n--" + boundary.encode("latin-1")
    # As if the first delimiter followed a line, which it does only after a preamble.
    held = b"\r\n"
    held = await _read_past(chunks, held, delimiter)
    held = await _read_past(chunks, held, delimiter)
    head, held = await _read_until(chunks, held, b"\r\n\r\n")
    return FilePart(headers=_headers(head), chunks=_file(chunks, held, delimiter))


async def _read_past(chunks: AsyncIterator[bytes], held: bytes, delimiter: bytes) -> bytes:
    """Drops everything up to a delimiter and the rest of its line; the line's end stays, for headers may be none."""
    _, held = await _read_until(chunks, held, delimiter)
    padding, held = await _read_until(chunks, held, b"\r\n")
    if padding.strip(b" \t"):
        raise WrongMultipart("The parts end too early" if padding.startswith(b"--") else "A boundary is wrong")
    return b"\r\n" + held


async def _read_until(chunks: AsyncIterator[bytes], held: bytes, mark: bytes) -> tuple[bytes, bytes]:
    while mark not in held:
        if len(held) > HEAD_BYTES_MAX:
            raise WrongMultipart("What precedes the file is too large")
        held += await _next(chunks)
    before, _, after = held.partition(mark)
    if len(before) > HEAD_BYTES_MAX:
        raise WrongMultipart("What precedes the file is too large")
    return before, after


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    try:
        return await anext(chunks)
    except StopAsyncIteration:
        raise WrongMultipart("The body ends too early") from None


def _headers(head: bytes) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    return headers


async def _file(chunks: AsyncIterator[bytes], held: bytes, delimiter: bytes) -> AsyncGenerator[bytes, None]:
    """The bytes up to the delimiter; what could be the beginning of one is held back until the next piece is there."""
    keep = len(delimiter) - 1
    # An empty file has its delimiter at once, where the line's end was that of its headers.
    if held.startswith(delimiter[2:]):
        held = b"\r\n" + held
    while (end := held.find(delimiter)) < 0:
        if len(held) > keep:
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
        held += await _next(chunks)
    if end:
        yield held[:end]
    async for _ in chunks:  # the last boundary, and what may follow it
        pass
