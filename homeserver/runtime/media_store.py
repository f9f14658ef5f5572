"""Where the bytes of media are kept, as the configuration says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Literal, TypeAlias

from homeserver.config.load import ConfigError, s3_mistakes
from homeserver.config.schema import Config
from homeserver.core.clock import Clock
from storage.media.base import MediaBytes
from storage.media.filesystem import FileSystemBytes

Storage: TypeAlias = Literal["files", "s3"]
"""The values of `media.storage`."""


@asynccontextmanager
async def media_store(config: Config, clock: Clock, *, storage: Storage | None = None) -> AsyncIterator[MediaBytes]:
    """The store of the configuration, or another one that it describes, for the time of the block.

    Raises:
        ConfigError: it does not describe it.
    """
    folder = config.data_dir / "media"
    if (storage or config.media.storage) == "files":
        yield FileSystemBytes(folder)
        return
    mistakes = list(s3_mistakes(config))
    if mistakes:
        raise ConfigError(mistakes)
    # It needs much memory, and packages that are installed only where it is wanted.
    s3 = import_module("storage.media.s3")
    async with s3.S3Bytes(config.media.s3, spool_folder=folder / "incoming", clock=clock) as store:
        yield store
