"""What discovery asks: SRV records over real DNS packets, and `.well-known` over real TLS (S35)."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from aiohttp import web

from federation.outbound.srv import NONE_TTL_SECONDS, DnsSrvLookup, SrvAnswer, SrvRecord
from federation.outbound.well_known import (
    LIFETIME_SECONDS,
    LIFETIME_SECONDS_MAX,
    LIFETIME_SECONDS_MIN,
    REFUSAL_SECONDS,
    HttpWellKnown,
    WellKnown,
    lifetime_seconds,
)
from homeserver.core.ids import ServerName
from homeserver.net.addresses import AddressPolicy
from homeserver.net.http_client import HttpClient
from homeserver.net.tls import client_tls
from tests.fast_clock import FastClock
from tests.federation.certificates import CertificateAuthority
from tests.net.hosts import FakeNames, http_host

NOW_MS = 1_700_000_000_000


class NameServer(asyncio.DatagramProtocol):
    """Answers SRV queries from a table: records, or an error code."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.table = table
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        question = query.question[0]
        found = self.table.get(question.name.to_text(omit_final_dot=True), dns.rcode.NXDOMAIN)
        if isinstance(found, dns.rcode.Rcode):
            response.set_rcode(found)
        elif found:
            response.answer.append(dns.rrset.from_text(question.name, 77, "IN", "SRV", *found))
        assert self.transport is not None
        self.transport.sendto(response.to_wire(), address)


@asynccontextmanager
async def name_server(table: dict[str, Any]) -> AsyncIterator[DnsSrvLookup]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: NameServer(table), local_addr=("127.0.0.1", 0))
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], transport.get_extra_info("sockname")[1]
    try:
        yield DnsSrvLookup(resolver)
    finally:
        transport.close()


async def test_records() -> None:
    table = {
        "_matrix-fed._tcp.a.example": ["10 5 8448 one.example.", "20 0 443 two.example."],
        "_matrix-fed._tcp.empty.example": [],
        "_matrix-fed._tcp.none.example": ["0 0 0 ."],
        "_matrix-fed._tcp.many.example": [f"1 1 {port} h.example." for port in range(1, 40)],
        "_matrix-fed._tcp.broken.example": dns.rcode.SERVFAIL,
    }
    async with name_server(table) as lookup:
        found = await lookup.records("_matrix-fed._tcp.a.example")
        assert found is not None
        assert found.ttl_seconds == 77
        assert set(found.records) == {SrvRecord(10, 5, 8448, "one.example"), SrvRecord(20, 0, 443, "two.example")}
        for name in ("_matrix-fed._tcp.empty.example", "_matrix-fed._tcp.nowhere.example"):
            assert await lookup.records(name) == SrvAnswer((), NONE_TTL_SECONDS)
        none = await lookup.records("_matrix-fed._tcp.none.example")
        assert none is not None
        assert [record.host for record in none.records] == ["."]
        many = await lookup.records("_matrix-fed._tcp.many.example")
        assert many is not None
        assert len(many.records) == 20
        assert await lookup.records("_matrix-fed._tcp.broken.example") is None
        assert await lookup.records(f"_matrix-fed._tcp.{'x' * 70}.example") is None


async def test_a_name_server_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.outbound.srv.LOOKUP_SECONDS_MAX", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], silent.getsockname()[1]
        assert await DnsSrvLookup(resolver).records("_matrix._tcp.a.example") is None


@asynccontextmanager
async def domain(authority: CertificateAuthority, answer: Any, *, name: str = "a.test") -> AsyncIterator[HttpWellKnown]:
    """What asks the web server of a domain, which answers everything in the same way."""

    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        assert request.raw_path == "/.well-known/matrix/server" or request.raw_path.startswith("/elsewhere")
        made: web.StreamResponse = answer(request) if callable(answer) else web.Response(**answer)
        return made

    names = FakeNames({"a.test": ["127.0.0.1"]})
    tls = client_tls(ca_file=authority.ca_file)
    async with http_host(respond, tls=authority.issue(name).server_context()) as host:
        async with HttpClient(policy=AddressPolicy(blocklist=()), tls=tls, lookup=names) as http:
            yield HttpWellKnown(http=http, clock=FastClock(), port=host.port)


GOOD = '{"m.server":"b.test:8448"}'
SAID = WellKnown(ServerName.parse("b.test:8448"), LIFETIME_SECONDS)
SILENT = WellKnown(None, REFUSAL_SECONDS)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"text": GOOD}, SAID),
        ({"text": GOOD, "content_type": "text/html"}, SAID),
        ({"text": GOOD, "headers": {"Cache-Control": "max-age=300"}}, WellKnown(SAID.delegated, 300)),
        ({"text": GOOD, "status": 201}, SILENT),
        ({"text": GOOD, "status": 404}, SILENT),
        ({"text": GOOD, "status": 500}, None),
        ({"text": "no json"}, SILENT),
        ({"text": "[]"}, SILENT),
        ({"text": '{"m.server":1}'}, SILENT),
        ({"text": '{"m.server":"no server"}'}, SILENT),
        ({"text": '{"m.server":"b.test:99999"}'}, SILENT),
        ({"text": "[" * 10_000 + "]" * 10_000}, SILENT),
        ({"body": bytes(50 * 1024 + 1)}, None),
    ],
)
async def test_well_known(authority: CertificateAuthority, answer: dict[str, Any], expected: WellKnown | None) -> None:
    """S35: an answer of more than 50 KiB is not read."""
    async with domain(authority, answer) as asked:
        assert await asked.fetch("a.test") == expected


async def test_redirects_are_followed_but_not_in_circles(authority: CertificateAuthority) -> None:
    def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path == "/elsewhere":
            return web.Response(text=GOOD)
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    async with domain(authority, answer) as asked:
        assert await asked.fetch("a.test") == SAID
    async with domain(authority, {"status": 302, "headers": {"Location": "/elsewhere"}}) as asked:
        assert await asked.fetch("a.test") is None


async def test_the_certificate_of_the_domain_is_checked(authority: CertificateAuthority) -> None:
    async with domain(authority, {"text": GOOD}, name="b.test") as asked:
        assert await asked.fetch("a.test") is None
        assert await asked.fetch("nowhere.test") is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, LIFETIME_SECONDS),
        ({"cache-control": "public, max-age=1000"}, 1000),
        ({"cache-control": 'MAX-AGE="1000"'}, 1000),
        ({"cache-control": "s-max-age=5, x-max-age=6"}, LIFETIME_SECONDS),
        ({"cache-control": "no-store"}, LIFETIME_SECONDS_MIN),
        ({"cache-control": "max-age=1000, no-cache"}, LIFETIME_SECONDS_MIN),
        ({"cache-control": "max-age=1"}, LIFETIME_SECONDS_MIN),
        ({"cache-control": "max-age=9999999999999"}, LIFETIME_SECONDS_MAX),
        ({"cache-control": "max-age=1000000"}, LIFETIME_SECONDS_MAX),
        ({"expires": formatdate(NOW_MS / 1000 + 5000, usegmt=True)}, 5000),
        ({"expires": formatdate(NOW_MS / 1000 - 5000, usegmt=True)}, LIFETIME_SECONDS_MIN),
        ({"expires": "0"}, LIFETIME_SECONDS_MIN),
        ({"cache-control": "max-age=70", "expires": formatdate(NOW_MS / 1000 + 5000, usegmt=True)}, 70),
    ],
)
def test_how_long_an_answer_may_be_kept(headers: dict[str, str], seconds: float) -> None:
    assert lifetime_seconds(headers, now_ms=NOW_MS) == seconds
