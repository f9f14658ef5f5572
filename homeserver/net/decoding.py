"""Undoes the compression of an answer piece by piece, so that no little piece becomes a large one (CWE-409)."""

import zlib
from collections.abc import Iterator
from typing import Final, Protocol

from homeserver.net.errors import AnswerInvalid

ACCEPTED: Final = "gzip"
"""The value of `Accept-Encoding`."""

PIECE_BYTES_MAX: Final = 65_536
_GZIP: Final = zlib.MAX_WBITS | 16


class Decoder(Protocol):
    """Turns what comes into what was meant."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        """The next pieces, none larger than `PIECE_BYTES_MAX`, computed only as they are taken.

        Raises:
            AnswerInvalid: the data is damaged.
        """
        ...

    def finish(self) -> None:
        """Says that all has come.

        Raises:
            AnswerInvalid: something is missing.
        """
        ...


class _Identity:
    def decode(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), PIECE_BYTES_MAX):
            yield data[start : start + PIECE_BYTES_MAX]

    def finish(self) -> None:
        return


class _Gzip:
    """One or several gzip members after each other (RFC 1952)."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP)
        self._begun = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._stream.eof:
                self._stream = zlib.decompressobj(_GZIP)
            self._begun = True
            yield from self._decode_member(data)
            data = self._stream.unused_data

    def _decode_member(self, data: bytes) -> Iterator[bytes]:
        """What the present member makes of the data; what lies behind its end stays in `unused_data`."""
        piece = None
        # A full piece may leave something in the decompressor though all input is taken in.
        while data or (piece is not None and len(piece) == PIECE_BYTES_MAX and not self._stream.eof):
            try:
                piece = self._stream.decompress(data, PIECE_BYTES_MAX)
            except zlib.error as error:
                raise AnswerInvalid("The answer is badly compressed") from error
            if piece:
                yield piece
            data = b"" if self._stream.eof else self._stream.unconsumed_tail

    def finish(self) -> None:
        if self._begun and not self._stream.eof:
            raise AnswerInvalid("The compressed answer ends too early")


def decoder_for(content_encoding: str) -> Decoder:
    """The decoder for a value of `Content-Encoding`.

    Raises:
        AnswerInvalid: it is an encoding that was not asked for.
    """
    name = content_encoding.strip().lower()
    if name in ("", "identity"):
        return _Identity()
    if name in ("gzip", "x-gzip"):
        return _Gzip()
    raise AnswerInvalid(f"The answer is encoded as {name[:50]!r}")
