"""The outgoing HTTP client: what it connects to, whom it believes, and how much it takes (S34, S35)."""

import asyncio
import gzip
import ipaddress
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from homeserver.config.schema import PRIVATE_RANGES
from homeserver.net.addresses import AddressPolicy
from homeserver.net.errors import (
    AddressForbidden,
    AnswerInvalid,
    AnswerTooLarge,
    CertificateRefused,
    ConnectionLost,
    NotConnected,
    TookTooLong,
)
from homeserver.net.http_client import IDLE_HOSTS_MAX, CallLimits, HttpAnswer, HttpClient, OutgoingRequest
from homeserver.net.tls import client_tls
from tests.federation.certificates import CertificateAuthority
from tests.net.hosts import FakeNames, http_host, raw_host

LIMITS = CallLimits(total_seconds=10, bytes_max=1000)
ANYWHERE = AddressPolicy(blocklist=())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def client(
    hosts: Mapping[str, Sequence[str]] | None = None, *, policy: AddressPolicy = ANYWHERE, ca_file: Path | None = None
) -> AsyncIterator[HttpClient]:
    names = FakeNames(hosts or {})
    async with HttpClient(policy=policy, tls=client_tls(ca_file=ca_file), lookup=names) as running:
        yield running


async def get(http: HttpClient, url: str, limits: CallLimits = LIMITS, **options: object) -> HttpAnswer:
    return await http.fetch(OutgoingRequest(method="GET", url=url, **options), limits)  # type: ignore[arg-type]


async def hello(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="hello")


async def test_a_request_is_sent_as_it_is() -> None:
    async with http_host(hello) as host, client({"a.test": ["127.0.0.1"]}) as http:
        request = OutgoingRequest(
            method="PUT",
            url=f"http://a.test:{host.port}/a%2Fb%21/%40?q=%20+%2b",
            headers={"Host": "other.test:80", "Content-Type": "text/plain"},
            body=b"body",
        )
        answer = await http.fetch(request, LIMITS)
        assert (answer.status, answer.body) == (200, b"hello")
        (asked,) = host.requests
        assert asked.raw_path == "/a%2Fb%21/%40?q=%20+%2b"
        assert asked.method == "PUT"
        assert asked.headers["Host"] == "other.test:80"
        assert asked.headers["User-Agent"].startswith("Heliograph/")
        assert "Cookie" not in asked.headers


@pytest.mark.parametrize("target", ["a.test", "127.0.0.1", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"])
async def test_the_own_network_is_out_of_reach(target: str) -> None:
    """S34: by name, by literal address, and in disguise."""
    policy = AddressPolicy(blocklist=PRIVATE_RANGES)
    async with http_host(hello) as host, client({"a.test": ["127.0.0.1", "::1"]}, policy=policy) as http:
        with pytest.raises(AddressForbidden):
            await get(http, f"http://{target}:{host.port}/")
        assert not host.requests


async def test_good_addresses_of_a_name_are_used_and_bad_ones_not() -> None:
    policy = AddressPolicy(
        blocklist=[ipaddress.ip_network("127.0.0.0/8")], allowlist=[ipaddress.ip_network("127.0.0.1/32")]
    )
    async with http_host(hello) as host, client({"a.test": ["127.0.0.2", "127.0.0.1"]}, policy=policy) as http:
        assert (await get(http, f"http://a.test:{host.port}/")).body == b"hello"
        with pytest.raises(AddressForbidden):
            await get(http, f"http://127.0.0.2:{host.port}/")


@pytest.mark.parametrize("url", ["file:/etc/passwd", "ftp://a.test/", "//a.test/", "http:///x", "http://u:p@a.test/"])
async def test_only_plain_urls_are_fetched(url: str) -> None:
    async with client({"a.test": ["127.0.0.1"]}) as http:
        with pytest.raises(AnswerInvalid):
            await get(http, url)


async def test_odd_spellings_of_addresses_are_refused() -> None:
    policy = AddressPolicy(blocklist=PRIVATE_RANGES)
    async with http_host(hello) as host, client(policy=policy) as http:
        for spelling in ("127.1", "2130706433", "0x7f.0.0.1"):
            with pytest.raises((AddressForbidden, NotConnected, AnswerInvalid)):
                await get(http, f"http://{spelling}:{host.port}/")
        assert not host.requests


async def test_redirects_are_followed_and_counted() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        steps = int(request.path[1:])
        return (
            web.Response(text="there") if not steps else web.Response(status=302, headers={"Location": f"/{steps - 1}"})
        )

    async with http_host(answer) as host, client({"a.test": ["127.0.0.1"]}) as http:
        url = f"http://a.test:{host.port}"
        there = await get(http, f"{url}/3", redirects_max=3)
        assert (there.status, there.body, there.url) == (200, b"there", f"{url}/0")
        with pytest.raises(AnswerInvalid):
            await get(http, f"{url}/4", redirects_max=3)
        assert (await get(http, f"{url}/4")).status == 302
        with pytest.raises(AnswerInvalid):
            await http.fetch(OutgoingRequest(method="POST", url=f"{url}/1", redirects_max=3), LIMITS)


async def test_each_redirect_is_checked_anew() -> None:
    """S34: neither an address of the own network nor another scheme is reached by way of a redirect."""
    targets = iter(["http://b.test/", "http://127.0.0.1/", "http://[::1]:1/", "file:/etc/passwd", "http://u@a.test/"])

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": next(targets)})

    policy = AddressPolicy(blocklist=PRIVATE_RANGES, allowlist=[ipaddress.ip_network("127.0.0.9/32")])
    hosts = {"a.test": ["127.0.0.9"], "b.test": ["10.0.0.1"]}
    async with http_host(answer, address="127.0.0.9") as host, client(hosts, policy=policy) as http:
        for expected in (AddressForbidden, AddressForbidden, AddressForbidden, AnswerInvalid, AnswerInvalid):
            with pytest.raises(expected):
                await get(http, f"http://a.test:{host.port}/", redirects_max=5)


async def test_a_redirect_does_not_carry_secrets_to_another_host() -> None:
    async def redirect(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": f"http://b.test:{second.port}/"})

    async with http_host(hello) as second, http_host(redirect) as first:
        async with client({"a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"]}) as http:
            headers = {"Authorization": "Bearer secret", "Host": "a.test", "X-Kept": "yes"}
            await get(http, f"http://a.test:{first.port}/", headers=headers, redirects_max=1)
        (asked,) = second.requests
        assert "Authorization" not in asked.headers
        assert asked.headers["Host"] == f"b.test:{second.port}"
        assert asked.headers["X-Kept"] == "yes"


async def test_tls_is_not_left_by_a_redirect(authority: CertificateAuthority) -> None:
    async def redirect(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": f"http://a.test:{plain.port}/"})

    tls = authority.issue("a.test").server_context()
    async with http_host(hello) as plain, http_host(redirect, tls=tls) as safe:
        async with client({"a.test": ["127.0.0.1"]}, ca_file=authority.ca_file) as http:
            with pytest.raises(AnswerInvalid):
                await get(http, f"https://a.test:{safe.port}/", redirects_max=1)
        assert not plain.requests


async def test_the_certificate_must_be_for_the_name_that_is_asked_for(authority: CertificateAuthority) -> None:
    """The name can be another than the one connected to; SNI tells it."""
    asked_for: list[str | None] = []
    tls = authority.issue("right.test").server_context()
    tls.sni_callback = lambda _, name, __: asked_for.append(name)
    async with http_host(hello, tls=tls) as host, client({"a.test": ["127.0.0.1"]}, ca_file=authority.ca_file) as http:
        url = f"https://a.test:{host.port}/"
        with pytest.raises(CertificateRefused):
            await get(http, url)
        with pytest.raises(CertificateRefused):
            await get(http, url, tls_name="wrong.test")
        assert (await get(http, url, tls_name="right.test")).body == b"hello"
        # A connection that was good for one name is not used for another.
        with pytest.raises(CertificateRefused):
            await get(http, url, tls_name="wrong.test")
    assert asked_for == ["a.test", "wrong.test", "right.test", "wrong.test"]


@pytest.mark.parametrize("names", [("localhost", "10.0.0.1"), ("127.0.0.1",)])
async def test_a_certificate_for_an_address(authority: CertificateAuthority, names: tuple[str, ...]) -> None:
    tls = authority.issue(*names).server_context()
    async with http_host(hello, tls=tls) as host, client(ca_file=authority.ca_file) as http:
        url = f"https://127.0.0.1:{host.port}/"
        if "127.0.0.1" in names:
            assert (await get(http, url)).status == 200
        else:
            with pytest.raises(CertificateRefused):
                await get(http, url)


async def test_expired_and_unknown_certificates_are_refused(authority: CertificateAuthority, tmp_path: Path) -> None:
    stranger = CertificateAuthority(tmp_path, name="stranger")
    hosts = {"a.test": ["127.0.0.1"]}
    for certificate in (authority.issue("a.test", is_expired=True), stranger.issue("a.test")):
        async with http_host(hello, tls=certificate.server_context()) as host:
            async with client(hosts, ca_file=authority.ca_file) as http:
                with pytest.raises(CertificateRefused):
                    await get(http, f"https://a.test:{host.port}/")
            tls = client_tls(ca_file=authority.ca_file, verify=False)
            async with HttpClient(policy=ANYWHERE, tls=tls, lookup=FakeNames(hosts)) as http:
                assert (await get(http, f"https://a.test:{host.port}/")).status == 200


async def test_a_host_that_speaks_no_tls(authority: CertificateAuthority) -> None:
    async with http_host(hello) as host, client({"a.test": ["127.0.0.1"]}, ca_file=authority.ca_file) as http:
        with pytest.raises(NotConnected):
            await get(http, f"https://a.test:{host.port}/")


async def test_large_answers_are_not_read_to_their_end() -> None:
    sent = 0

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 1_000_000_000:
            await response.write(bytes(10_000))
            sent += 10_000
        return response

    async with http_host(endless) as host, client({"a.test": ["127.0.0.1"]}) as http:
        with pytest.raises(AnswerTooLarge):
            await get(http, f"http://a.test:{host.port}/")
    assert sent < 50_000_000


async def test_an_answer_that_says_that_it_is_large_is_not_read_at_all() -> None:
    async with raw_host(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", hold=True) as port:
        async with client({"a.test": ["127.0.0.1"]}) as http:
            with pytest.raises(AnswerTooLarge):
                await get(http, f"http://a.test:{port}/")


async def test_a_small_answer_that_unpacks_into_a_large_one() -> None:
    """S35: the limit is for what comes out of the decompressor."""

    async def bomb(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=gzip.compress(bytes(50_000_000)), headers={"Content-Encoding": "gzip"})

    async with http_host(bomb) as host, client({"a.test": ["127.0.0.1"]}) as http:
        with pytest.raises(AnswerTooLarge):
            await get(http, f"http://a.test:{host.port}/", CallLimits(bytes_max=1_000_000))


async def test_compressed_answers_are_unpacked() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "gzip"
        return web.Response(body=gzip.compress(b"hello"), headers={"Content-Encoding": "gzip"})

    async with http_host(answer) as host, client({"a.test": ["127.0.0.1"]}) as http:
        assert (await get(http, f"http://a.test:{host.port}/")).body == b"hello"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", ConnectionLost),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", ConnectionLost),
        (b"nonsense\r\n\r\n", AnswerInvalid),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", AnswerInvalid),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n", AnswerInvalid),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", AnswerInvalid),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx", AnswerInvalid),
    ],
)
async def test_broken_answers(answer: bytes, expected: type[Exception]) -> None:
    async with raw_host(answer) as port, client({"a.test": ["127.0.0.1"]}) as http:
        with pytest.raises(expected):
            await get(http, f"http://a.test:{port}/")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"])
async def test_slow_answers_end_in_time(answer: bytes) -> None:
    async with raw_host(answer, hold=True) as port, client({"a.test": ["127.0.0.1"]}) as http:
        with pytest.raises(TookTooLong):
            await get(http, f"http://a.test:{port}/", CallLimits(total_seconds=0.2))


async def test_hosts_that_do_not_exist_or_listen() -> None:
    async with http_host(hello) as host:
        port = host.port
    async with client({"a.test": ["127.0.0.1"]}) as http:
        for url in (f"http://a.test:{port}/", "http://nowhere.test/"):
            with pytest.raises(NotConnected):
                await get(http, url)


async def test_connections_are_used_again_unless_there_are_too_many() -> None:
    hosts = {f"h{number}.test": ["127.0.0.1"] for number in range(IDLE_HOSTS_MAX + 1)}
    async with http_host(hello) as host, client(hosts) as http:
        for _ in range(3):
            await get(http, f"http://h0.test:{host.port}/")
        assert len(host.connections) == 1
        for name in hosts:
            await get(http, f"http://{name}:{host.port}/")
        assert host.requests[-1].headers.get("Connection") == "close"
        assert host.requests[-2].headers.get("Connection") != "close"


async def test_a_body_can_be_taken_as_it_comes() -> None:
    released = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await released.wait()
        await response.write(b"second")
        return response

    async with http_host(answer) as host, client({"a.test": ["127.0.0.1"]}) as http:
        request = OutgoingRequest(method="GET", url=f"http://a.test:{host.port}/")
        async with http.open(request, LIMITS) as opened:
            chunks = opened.chunks()
            assert await anext(chunks) == b"first"
            released.set()
            assert [chunk async for chunk in chunks] == [b"second"]
