"""Keeps the bytes of media in a bucket of an S3-compatible store: `<prefix>content/ab/<SHA-256>`.

A file is written to this machine first, so that its hash is known before anything goes out: it gets its key at once,
whole or not at all, and the store checks each part against the hash that is signed with it. Of an upload that was
interrupted only the parts of a large file can be left, which no reader sees; they are swept.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiobotocore.session import AioSession  # type: ignore[import-untyped]
from aiohttp import ClientError as HttpError
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from homeserver.config.schema import S3Config
from homeserver.core.clock import Clock
from storage.media.base import READ_BYTES, NoSuchBytes, StoreUnavailable
from storage.media.spool import Spool, SpooledFile

PART_BYTES: Final = 8 * 1024 * 1024
"""Larger files are sent in parts of this size; S3 takes ten thousand of them."""
TRANSFERS_MAX: Final = 8
"""How many files a process sends at once, each with a part in memory."""
CONNECTIONS_MAX: Final = 128
URL_SECONDS: Final = 300
"""For how long a client may begin to fetch what it has got a URL for."""

CONNECT_SECONDS_MAX: Final = 5
SILENCE_SECONDS_MAX: Final = 30
"""For the next bytes of an answer."""
REQUEST_SECONDS_MAX: Final = 120.0
"""For a request with all its attempts."""
ATTEMPTS_MAX: Final = 4
READ_ATTEMPTS_MAX: Final = 3
"""How often a file that breaks off is read on from there."""
READ_PAUSE_SECONDS: Final = 0.2
ABORT_SECONDS_MAX: Final = 10.0

_ABSENT: Final = frozenset(("NoSuchKey", "NotFound", "404"))
_NO_SUCH_RANGE: Final = "InvalidRange"
_NO_SUCH_UPLOAD: Final = "NoSuchUpload"
_UNKNOWN_OPERATION: Final = frozenset(("NotImplemented", "MethodNotAllowed"))

logger = logging.getLogger(__name__)

# What it would tell at length has the signed requests in it.
logging.getLogger("botocore").setLevel(logging.WARNING)
logging.getLogger("aiobotocore").setLevel(logging.WARNING)


class S3Bytes:
    """A store in a bucket, which is there; use as `async with S3Bytes(...) as store:`."""

    def __init__(self, config: S3Config, *, spool_folder: Path, clock: Clock) -> None:
        """Takes where the bucket is, and a folder of this machine for what is on its way."""
        self._config = config
        self._prefix = f"{config.prefix or ''}content/"
        self._spool = Spool(spool_folder)
        self._clock = clock
        self._stack = AsyncExitStack()
        self._transfers = asyncio.Semaphore(TRANSFERS_MAX)
        self._client: Any = None
        self._public_client: Any = None

    async def __aenter__(self) -> Self:
        self._client = await self._stack.enter_async_context(self._connect(self._config.endpoint_url))
        self._public_client = self._client
        if self._config.public_endpoint_url is not None:
            public = self._connect(self._config.public_endpoint_url)
            self._public_client = await self._stack.enter_async_context(public)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def incoming(self) -> AsyncIterator["IncomingObject"]:
        """A new file aside; see `MediaBytes`."""
        file = self._spool.create()
        try:
            yield IncomingObject(file, self)
        finally:
            await file.discard()

    async def open(self, sha256: bytes, *, start: int = 0, length: int | None = None) -> "OpenObject":
        """Opens bytes for reading; see `MediaBytes`."""
        opened = OpenObject(self, sha256, start=start, length=length)
        await opened.begin()
        return opened

    @asynccontextmanager
    async def as_file(self, sha256: bytes) -> AsyncIterator[Path]:
        """A copy on this machine; see `MediaBytes`."""
        file = self._spool.create()
        try:
            async for data in await self.open(sha256):
                await file.write(data)
            await file.finish(sync=False)
            yield file.path
        finally:
            await file.discard()

    async def remove(self, sha256: bytes) -> None:
        """Removes bytes; see `MediaBytes`."""
        await self.call("delete_object", Key=self.key_of(sha256))

    async def url(self, sha256: bytes, *, content_type: str, content_disposition: str) -> str | None:
        """A signed URL of the bucket; None unless the configuration wants it."""
        if not self._config.redirect_downloads:
            return None
        wanted = {
            "Bucket": self._config.bucket,
            "Key": self.key_of(sha256),
            "ResponseContentType": content_type,
            "ResponseContentDisposition": content_disposition,
            "ResponseCacheControl": "private, max-age=86400",
        }
        with _translated("generate_presigned_url"):
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                url: str = await self._public_client.generate_presigned_url(
                    "get_object", Params=wanted, ExpiresIn=URL_SECONDS
                )
        return url

    async def sweep_incoming(self, *, older_than_seconds: float) -> int:
        """Removes files on this machine and parts in the bucket; see `MediaBytes`."""
        count = await self._spool.sweep(older_than_seconds=older_than_seconds)
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        async for upload in self._unfinished_uploads():
            if upload["Initiated"] < now - timedelta(seconds=older_than_seconds):
                await self._abort(upload["Key"], upload["UploadId"])
                count += 1
        return count

    def key_of(self, sha256: bytes) -> str:
        """Under which key bytes lie."""
        name = sha256.hex()
        return f"{self._prefix}{name[:2]}/{name}"

    async def put(self, file: SpooledFile) -> None:
        """Puts a finished file in its place.

        Raises:
            StoreUnavailable: it is not there, or perhaps not.
        """
        key = self.key_of(file.sha256)
        async with self._transfers:
            if file.size_bytes <= PART_BYTES:
                data = await asyncio.to_thread(file.path.read_bytes)
                await self.call("put_object", Key=key, Body=data)
            elif not await self._has(key, size_bytes=file.size_bytes):
                await self._put_in_parts(key, file)

    async def call(self, operation: str, **parameters: Any) -> Any:
        """Asks the store something about the bucket, within limits of time; what fails by chance is tried again.

        Raises:
            NoSuchBytes: the key is not there.
            StoreUnavailable: the store does not answer, or refuses.
        """
        with _translated(operation):
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                return await getattr(self._client, operation)(Bucket=self._config.bucket, **parameters)

    async def pause(self) -> None:
        """Waits before another attempt."""
        await self._clock.sleep(READ_PAUSE_SECONDS)

    async def _has(self, key: str, *, size_bytes: int) -> bool:
        try:
            found = await self.call("head_object", Key=key)
        except NoSuchBytes:
            return False
        return bool(found["ContentLength"] == size_bytes)

    async def _put_in_parts(self, key: str, file: SpooledFile) -> None:
        upload_id = (await self.call("create_multipart_upload", Key=key))["UploadId"]
        try:
            parts = []
            for number, start in enumerate(range(0, file.size_bytes, PART_BYTES), start=1):
                data = await asyncio.to_thread(_read_part, file.path, start)
                part = await self.call("upload_part", Key=key, UploadId=upload_id, PartNumber=number, Body=data)
                parts.append({"PartNumber": number, "ETag": part["ETag"]})
            await self.call("complete_multipart_upload", Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts})
        except BaseException:
            # Where this fails too, the sweep finds the parts.
            try:
                async with asyncio.timeout(ABORT_SECONDS_MAX):
                    await self._abort(key, upload_id)
            except (StoreUnavailable, TimeoutError) as error:
                logger.warning("The parts of an upload are left to the sweep: %s", error)
            raise

    async def _abort(self, key: str, upload_id: str) -> None:
        try:
            await self.call("abort_multipart_upload", Key=key, UploadId=upload_id)
        except NoSuchBytes:
            return  # it was finished, or aborted, meanwhile

    async def _unfinished_uploads(self) -> AsyncIterator[Any]:
        markers: dict[str, str] = {}
        while True:
            try:
                page = await self.call("list_multipart_uploads", Prefix=self._prefix, **markers)
            except UnknownOperation as error:
                logger.warning("The parts of interrupted uploads cannot be swept: %s", error)
                return
            for upload in page.get("Uploads", ()):
                yield upload
            if not page.get("IsTruncated"):
                return
            markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _connect(self, endpoint_url: str | None) -> Any:
        config = self._config
        return AioSession().create_client(
            "s3",
            region_name=config.region,
            endpoint_url=endpoint_url,
            aws_access_key_id=config.access_key_id,
            aws_secret_access_key=config.secret_access_key,
            aws_session_token=config.session_token,
            config=AioConfig(
                signature_version="s3v4",
                connect_timeout=CONNECT_SECONDS_MAX,
                read_timeout=SILENCE_SECONDS_MAX,
                max_pool_connections=CONNECTIONS_MAX,
                retries={"total_max_attempts": ATTEMPTS_MAX, "mode": "standard"},
                # Every store knows the hash in the signature; few know S3's own newer checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path" if config.path_style else "auto", "payload_signing_enabled": True},
            ),
        )


class UnknownOperation(StoreUnavailable):
    """The store does not know what it was asked for."""


class IncomingObject:
    """A file that is being written; see `IncomingFile`."""

    def __init__(self, file: SpooledFile, store: S3Bytes) -> None:
        self._file = file
        self._store = store

    async def write(self, data: bytes) -> None:
        """Adds some bytes."""
        await self._file.write(data)

    async def finish(self) -> tuple[bytes, int]:
        """Writes the rest; they are safe once they are kept."""
        await self._file.finish(sync=False)
        return self._file.sha256, self._file.size_bytes

    async def keep(self) -> None:
        """Sends the file to its place; see `IncomingFile`."""
        await self._store.put(self._file)


class OpenObject(AsyncGenerator[bytes, None]):
    """An object that is being read, or a part of it; see `OpenBytes`. Where it breaks off it is read on from there."""

    def __init__(self, store: S3Bytes, sha256: bytes, *, start: int, length: int | None) -> None:
        self._store = store
        self._sha256 = sha256
        self._position = start
        self._end = None if length is None else start + length
        self._body: Any = None

    async def begin(self) -> None:
        """Asks for what has not been read yet.

        Raises:
            NoSuchBytes: the object is not there.
            StoreUnavailable: the store does not answer.
        """
        if self._end is not None and self._position >= self._end:
            return
        wanted = {}
        if self._position or self._end is not None:
            wanted["Range"] = f"bytes={self._position}-{'' if self._end is None else self._end - 1}"
        try:
            answer = await self._store.call("get_object", Key=self._store.key_of(self._sha256), **wanted)
        except EndReached:
            return
        self._body = answer["Body"]
        self._end = self._position + answer["ContentLength"]

    async def asend(self, _: None) -> bytes:
        """The next piece; at the end the answer is closed."""
        for attempt in range(1, READ_ATTEMPTS_MAX + 1):
            if self._body is None:
                break
            try:
                with _translated("get_object"):
                    async with asyncio.timeout(2 * SILENCE_SECONDS_MAX):
                        data: bytes = await self._body.read(READ_BYTES)
            except StoreUnavailable as error:
                self._close()
                if attempt == READ_ATTEMPTS_MAX:
                    raise
                logger.warning("A file is read on from byte %d: %s", self._position, error)
                await self._store.pause()
                await self.begin()
                continue
            if data:
                self._position += len(data)
                return data
            self._close()
        raise StopAsyncIteration

    async def athrow(
        self, kind: Any, value: BaseException | object = None, traceback: TracebackType | None = None
    ) -> bytes:
        """Closes the answer, and lets the exception go on."""
        self._close()
        if isinstance(kind, BaseException):
            raise kind
        raise value if isinstance(value, BaseException) else kind()

    async def aclose(self) -> None:
        """Closes the answer."""
        self._close()

    def _close(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def __del__(self) -> None:
        # An answer that nobody waits for any more is dropped without being closed.
        self._close()


class EndReached(StoreUnavailable):
    """The part that was asked for begins at the end or behind it."""


@contextmanager
def _translated(operation: str) -> Iterator[None]:
    """Turns the library's errors into ours; none of them shows a key."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        if code in _ABSENT or code == _NO_SUCH_UPLOAD:
            raise NoSuchBytes(operation) from None
        if code == _NO_SUCH_RANGE:
            raise EndReached(operation) from None
        kind = UnknownOperation if code in _UNKNOWN_OPERATION else StoreUnavailable
        raise kind(f"S3 refuses {operation}: {code}") from None
    except (BotoCoreError, HttpError, OSError) as error:
        raise StoreUnavailable(f"S3 does not answer {operation}: {type(error).__name__}") from None


def _read_part(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(PART_BYTES)
