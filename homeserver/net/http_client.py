"""The one client for calls to other hosts: federation, push gateways, previews, media, application services.

Whatever it is told to fetch, it connects only to addresses that the policy allows, on every redirect anew; it reads no
more than it was told, counted after decompression; and it ends in time. It sends no cookies and knows no proxies.

https://www.rfc-editor.org/rfc/rfc9110
"""

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Self
from urllib.parse import urljoin

import aiohttp
from aiohappyeyeballs import AddrInfoType
from yarl import URL

from homeserver.core.version import NAME, VERSION
from homeserver.net.addresses import AddressPolicy
from homeserver.net.decoding import ACCEPTED, decoder_for
from homeserver.net.errors import (
    AddressForbidden,
    AnswerInvalid,
    AnswerTooLarge,
    CallFailed,
    CertificateRefused,
    ConnectionLost,
    NotConnected,
    TookTooLong,
)
from homeserver.net.resolver import CheckedResolver, HostLookup, SystemLookup
from storage.database import forbid_in_transaction

USER_AGENT: Final = f"{NAME}/{VERSION}"

CONNECTIONS_MAX: Final = 200
CONNECTIONS_PER_HOST_MAX: Final = 20
KEEP_ALIVE_SECONDS: Final = 30.0
# With more hosts than this in the last moments, connections are closed after use: idle ones hold file descriptors.
IDLE_HOSTS_MAX: Final = 300
ADDRESS_SECONDS: Final = 60
HEAD_LINE_BYTES_MAX: Final = 16_384
HEADERS_MAX: Final = 100
READ_BYTES: Final = 65_536

_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
# What was meant for one host, and is not told to another that it redirects to.
_FOR_ONE_HOST: Final = frozenset(("authorization", "cookie", "host"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingRequest:
    """What is asked of another host.

    Attributes:
        method: GET, PUT, POST, DELETE or HEAD.
        url: `http` or `https`, percent-encoded; it is sent as it is. Its host is connected to.
        headers: a `Host` here stands in for the URL's.
        body: what is sent; the caller says its `Content-Type`.
        tls_name: whom the certificate must be for, and whom SNI asks for; None for the URL's host.
        redirects_max: how many redirects of GET and HEAD are followed, never from `https` to `http`.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    tls_name: str | None = None
    redirects_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """What a call may take.

    Attributes:
        total_seconds: from the first step to the last byte of the answer.
        connect_seconds: for one connection with its TLS handshake.
        bytes_max: of the answer's body, decompressed.
    """

    total_seconds: float = 30.0
    connect_seconds: float = 10.0
    bytes_max: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer, whole.

    Attributes:
        headers: by name in lower case; of those that stand several times the last.
        url: where it came from in the end.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    url: str


class OpenAnswer:
    """An answer whose body has still to be read, inside of `HttpClient.open`."""

    def __init__(self, response: aiohttp.ClientResponse, *, limits: CallLimits) -> None:
        self._response = response
        self._limits = limits
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        self.url = str(response.url)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body in pieces of at most 64 KiB, decompressed.

        Raises:
            AnswerTooLarge, AnswerInvalid, ConnectionLost, TookTooLong: the rest does not come.
        """
        announced = self._response.content_length
        if announced is not None and announced > self._limits.bytes_max:
            raise _too_large(self._limits)
        decoder = decoder_for(self.headers.get("content-encoding", ""))
        size_bytes = 0
        with _translated(self._response.url.host):
            async for data in self._response.content.iter_chunked(READ_BYTES):
                for piece in decoder.decode(data):
                    size_bytes += len(piece)
                    if size_bytes > self._limits.bytes_max:
                        raise _too_large(self._limits)
                    yield piece
        decoder.finish()

    async def read(self) -> bytes:
        """The whole body; raises as `chunks`."""
        whole = bytearray()
        async for chunk in self.chunks():
            whole += chunk
        return bytes(whole)


class HttpClient:
    """Use as `async with HttpClient(...) as client:`; it keeps connections open for those who ask again."""

    def __init__(self, *, policy: AddressPolicy, tls: ssl.SSLContext, lookup: HostLookup | None = None) -> None:
        """Takes which addresses are good, how certificates are checked, and who looks up names (None: the system)."""
        self._policy = policy
        self._tls = tls
        self._lookup = lookup or SystemLookup()
        self._session: aiohttp.ClientSession | None = None
        self._recent_hosts: OrderedDict[str, float] = OrderedDict()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=CONNECTIONS_MAX,
            limit_per_host=CONNECTIONS_PER_HOST_MAX,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            ttl_dns_cache=ADDRESS_SECONDS,
            resolver=CheckedResolver(lookup=self._lookup, policy=self._policy),
            socket_factory=self._make_socket,
            ssl=self._tls,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=HEAD_LINE_BYTES_MAX,
            max_field_size=HEAD_LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
        await self._lookup.close()

    async def fetch(self, request: OutgoingRequest, limits: CallLimits) -> HttpAnswer:
        """Asks, and reads the answer as a whole, whatever its status.

        Raises:
            CallFailed: there is no whole answer within the limits; see `homeserver.net.errors`.
        """
        async with self.open(request, limits) as answer:
            return HttpAnswer(answer.status, answer.headers, await answer.read(), answer.url)

    @asynccontextmanager
    async def open(self, request: OutgoingRequest, limits: CallLimits) -> AsyncIterator[OpenAnswer]:
        """Asks, and gives the answer once its head is there; the body is read inside the block, or dropped.

        Raises:
            CallFailed: there is no answer within the limits.
        """
        forbid_in_transaction("A call to another host")
        now = asyncio.get_running_loop().time
        ends = now() + limits.total_seconds
        redirects = 0
        while True:
            _check_url(request.url)
            left = replace(limits, total_seconds=max(ends - now(), 0.001))
            async with self._send(request, left) as response:
                target = response.headers.get("location")
                if request.redirects_max and response.status in _REDIRECTS and target is not None:
                    redirects += 1
                    if redirects > request.redirects_max:
                        raise AnswerInvalid("The redirects do not end")
                    request = _redirected(request, target)
                    continue
                yield OpenAnswer(response, limits=limits)
                return

    @asynccontextmanager
    async def _send(self, request: OutgoingRequest, limits: CallLimits) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None, "the client is not open"
        url = URL(request.url, encoded=True)
        headers = {"Accept-Encoding": ACCEPTED, "User-Agent": USER_AGENT, **request.headers}
        if not self._may_keep_open(url.host or ""):
            headers["Connection"] = "close"
        with _translated(url.host):
            response = await self._session.request(
                request.method,
                url,
                headers=headers,
                data=request.body,
                allow_redirects=False,
                server_hostname=request.tls_name,
                timeout=aiohttp.ClientTimeout(total=limits.total_seconds, sock_connect=limits.connect_seconds),
            )
        async with response:
            yield response

    def _may_keep_open(self, host: str) -> bool:
        """Whether the connections to so many hosts are few enough to be kept after use."""
        now = asyncio.get_running_loop().time()
        while self._recent_hosts and next(iter(self._recent_hosts.values())) < now - KEEP_ALIVE_SECONDS:
            self._recent_hosts.popitem(last=False)
        if host not in self._recent_hosts and len(self._recent_hosts) >= IDLE_HOSTS_MAX:
            return False
        self._recent_hosts[host] = now
        self._recent_hosts.move_to_end(host)
        return True

    def _make_socket(self, address: AddrInfoType) -> socket.socket:
        """A socket for one address: the last place where it can be refused, for addresses in URLs the only one."""
        family, kind, protocol, _, socket_address = address
        if not self._policy.allows(str(socket_address[0])):
            raise AddressForbidden(f"This server does not connect to {socket_address[0]}")
        return socket.socket(family, kind, protocol)


def _check_url(url: str) -> None:
    parts = URL(url, encoded=True)
    if parts.scheme not in ("http", "https") or not parts.host:
        raise AnswerInvalid("Only http and https URLs can be fetched")
    if parts.user is not None or parts.password is not None:
        raise AnswerInvalid("A URL with a user name or a password is not fetched")


def _redirected(request: OutgoingRequest, target: str) -> OutgoingRequest:
    """The request to where an answer leads; what was for the first host alone is left out."""
    if request.method not in ("GET", "HEAD"):
        raise AnswerInvalid("Only GET and HEAD follow redirects")
    try:
        old, new = URL(request.url, encoded=True), URL(urljoin(request.url, target))
    except ValueError as error:
        raise AnswerInvalid("The answer redirects to what is no URL") from error
    if old.scheme == "https" and new.scheme != "https":
        raise AnswerInvalid("The answer redirects to an unprotected connection")
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _FOR_ONE_HOST}
    return replace(request, url=str(new), headers=headers, tls_name=None)


def _too_large(limits: CallLimits) -> AnswerTooLarge:
    return AnswerTooLarge(f"The answer is larger than {limits.bytes_max} bytes")


@contextmanager
def _translated(host: str | None) -> Iterator[None]:
    """Lets aiohttp's errors leave as those of `homeserver.net.errors`."""
    try:
        yield
    except CallFailed:
        raise
    except aiohttp.ConnectionTimeoutError as error:
        raise NotConnected(f"{host} took too long to connect") from error
    except TimeoutError as error:
        raise TookTooLong(f"{host} did not answer in time") from error
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ServerFingerprintMismatch) as error:
        raise CertificateRefused(f"The certificate of {host} is not good: {_reason(error)}") from error
    except aiohttp.ClientConnectorError as error:
        raise NotConnected(f"No connection to {host}: {_reason(error)}") from error
    except aiohttp.InvalidURL as error:
        raise AnswerInvalid("Not a URL that can be fetched") from error
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, OSError) as error:
        raise ConnectionLost(f"The connection to {host} broke") from error
    except (aiohttp.ClientError, ValueError) as error:
        raise AnswerInvalid(f"{host} does not speak HTTP properly") from error


def _reason(error: Exception) -> str:
    """The innermost reason in a line, for logs."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return (getattr(error, "verify_message", "") or getattr(error, "strerror", "") or str(error))[:200]
