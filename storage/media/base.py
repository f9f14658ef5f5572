"""Where the bytes of media are kept: by their SHA-256, whatever they are called.

`filesystem.py` keeps them in a folder, `s3.py` in a bucket. Which bytes are still needed is known by the tables
(`storage.media_contents`).
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol

READ_BYTES: Final = 256 * 1024
"""How much is read at once."""


class NoSuchBytes(Exception):
    """The bytes are not there."""


class StoreUnavailable(Exception):
    """The store does not answer, or refuses; whether something was written is not known."""


class IncomingFile(Protocol):
    """Bytes that are being written, where nobody sees them yet."""

    async def write(self, data: bytes) -> None:
        """Adds some."""
        ...

    async def finish(self) -> tuple[bytes, int]:
        """Makes them safe on disk; returns their SHA-256 and how many they are."""
        ...

    async def keep(self) -> None:
        """Gives them their place, after `finish`; what is there already is the same."""
        ...


class OpenBytes(Protocol):
    """Bytes that are being read: an iterator of pieces, to be closed."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces, in order."""
        ...

    async def aclose(self) -> None:
        """Ends the reading."""
        ...


class MediaBytes(Protocol):
    """A store of bytes; where it is not on this machine, each method may raise `StoreUnavailable`."""

    def incoming(self) -> AbstractAsyncContextManager[IncomingFile]:
        """A new file aside; unless it was kept, nothing is left of it after the block."""
        ...

    async def open(self, sha256: bytes, *, start: int = 0, length: int | None = None) -> OpenBytes:
        """Opens bytes for reading, or a part of them.

        Raises:
            NoSuchBytes: they are not there.
        """
        ...

    def as_file(self, sha256: bytes) -> AbstractAsyncContextManager[Path]:
        """The bytes as a file on this machine, for the time of the block, for programs that read files.

        Raises:
            NoSuchBytes: they are not there.
        """
        ...

    async def remove(self, sha256: bytes) -> None:
        """Removes bytes, if they are there."""
        ...

    async def url(self, sha256: bytes, *, content_type: str, content_disposition: str) -> str | None:
        """Where a client may fetch bytes itself, for some minutes, with these headers; None: nowhere."""
        ...

    async def sweep_incoming(self, *, older_than_seconds: float) -> int:
        """Removes what interrupted writers have left, if nobody has written to it for so long; returns how many."""
        ...
