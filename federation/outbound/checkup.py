"""Looks at a server as others see it, step by step, and says in words what is wrong: for operators.

Nothing is remembered from before, and everything is looked at anew, also of this server itself.

https://spec.matrix.org/v1.19/server-server-api/#server-discovery
"""

import ipaddress
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

from federation.outbound.discovery import SERVICES, ServerDiscovery
from federation.outbound.srv import SrvLookup
from federation.outbound.target import Target
from federation.outbound.well_known import WellKnownFetcher
from federation.wire.server_keys import ANSWER_BYTES_MAX, DeniedKeys, KeyAnswer, parse_key_answer
from homeserver.core.canonical_json import parse_json
from homeserver.core.clock import Clock
from homeserver.core.errors import InvalidParam, MatrixError, NotJson
from homeserver.core.ids import ServerName
from homeserver.core.own_keys import OwnKeys
from homeserver.net.addresses import AddressPolicy
from homeserver.net.certificates import peer_certificate
from homeserver.net.errors import CallFailed
from homeserver.net.http_client import CallLimits, HttpAnswer, HttpClient, OutgoingRequest
from homeserver.net.resolver import HostLookup

LIMITS: Final = CallLimits(total_seconds=15.0, connect_seconds=10.0, bytes_max=ANSWER_BYTES_MAX)
TARGETS_MAX: Final = 4
ADDRESSES_MAX: Final = 8
CLOCK_MS_MAX: Final = 60_000
"""A larger difference of the clocks is worth a look."""

EXPIRY_MS_MIN: Final = 14 * 86_400_000
TEXT_CHARACTERS_MAX: Final = 200
JSON_DEPTH_MAX: Final = 20
_VERSION_PATH: Final = "/_matrix/federation/v1/version"
_KEYS_PATH: Final = "/_matrix/key/v2/server"


class Verdict(StrEnum):
    """What a finding means."""

    GOOD = "good"
    NOTE = "note"
    """Worth knowing; it need not be wrong."""
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out in one step."""

    server_name: ServerName
    subject: str
    verdict: Verdict
    text: str

    @property
    def is_problem(self) -> bool:
        """Whether something has to be done."""
        return self.verdict is Verdict.PROBLEM


class Checkup:
    """Examines servers."""

    def __init__(
        self,
        *,
        http: HttpClient,
        lookup: HostLookup,
        well_known: WellKnownFetcher,
        srv: SrvLookup,
        policy: AddressPolicy,
        tls: ssl.SSLContext,
        clock: Clock,
    ) -> None:
        """Takes the means to look: those of discovery, and which addresses and certificates are good."""
        self._http = http
        self._lookup = lookup
        self._well_known = well_known
        self._srv = srv
        self._policy = policy
        self._tls = tls
        self._clock = clock

    async def examine(self, server_name: ServerName, *, own_keys: OwnKeys | None = None) -> AsyncIterator[Finding]:
        """What is found out about a server, step by step.

        Args:
            server_name: the server.
            own_keys: what this server signs with, if it examines itself.
        """
        async for finding in self._where(server_name):
            yield finding
        discovery = ServerDiscovery(well_known=self._well_known, srv=self._srv, clock=self._clock)
        try:
            targets = (await discovery.targets(server_name))[:TARGETS_MAX]
        except MatrixError as error:
            yield Finding(server_name, "discovery", Verdict.PROBLEM, error.message)
            return
        answering: list[Target] = []
        for target in targets:
            place = f"{target.host}:{target.port}"
            is_good = True
            async for finding in self._reach(server_name, target):
                yield finding
                is_good = is_good and not finding.is_problem
            if is_good:
                answering.append(target)
            elif len(targets) > 1:
                yield Finding(server_name, "address", Verdict.NOTE, f"{place} is passed over")
        if not answering:
            yield Finding(server_name, "connection", Verdict.PROBLEM, "There is no place where the server answers")
            return
        async for finding in self._answers(server_name, answering[0]):
            yield finding
        async for finding in self._keys(server_name, answering[0], own_keys):
            yield finding

    async def _where(self, name: ServerName) -> AsyncIterator[Finding]:
        """Whether and to where the domain delegates."""
        if name.port is not None or _is_address(name.host):
            yield Finding(name, "well-known", Verdict.GOOD, "Not asked: the name has a port or is an address")
            return
        said = await self._well_known.fetch(name.host)
        asked = name
        if said is None:
            yield Finding(name, "well-known", Verdict.NOTE, f"https://{name.host}/.well-known/matrix/server: no answer")
        elif said.delegated is None:
            yield Finding(name, "well-known", Verdict.NOTE, "The domain names no other place")
        else:
            asked = said.delegated
            yield Finding(name, "well-known", Verdict.GOOD, f"The domain names {asked}")
            if asked.port is not None or _is_address(asked.host):
                return
        for service in SERVICES:
            answer = await self._srv.records(f"{service}.{asked}")
            if answer is None:
                yield Finding(name, "srv", Verdict.NOTE, f"{service}.{asked}: the DNS does not answer")
            elif answer.records:
                places = ", ".join(f"{record.host}:{record.port}" for record in answer.records)
                yield Finding(name, "srv", Verdict.GOOD, f"{service}.{asked}: {places}")
                return
            else:
                yield Finding(name, "srv", Verdict.NOTE, f"{service}.{asked}: no record")

    async def _reach(self, name: ServerName, target: Target) -> AsyncIterator[Finding]:
        """The addresses of a place, and the certificates that are shown there."""
        place = f"{target.host}:{target.port}"
        try:
            addresses = await self._addresses(target.host)
        except OSError as error:
            yield Finding(name, "address", Verdict.PROBLEM, f"{place} has no address: {error.strerror or error}")
            return
        allowed = [address for address in addresses if self._policy.allows(address)]
        for address in addresses:
            if address not in allowed:
                text = f"{place} is {address}, which this server does not connect to (ip_range_blocklist)"
                yield Finding(name, "address", Verdict.NOTE if allowed else Verdict.PROBLEM, text)
        good, failures = 0, []
        for address in allowed[:ADDRESSES_MAX]:
            finding = await self._certificate(name, target, address)
            if finding.is_problem:
                failures.append(finding)
            else:
                good += 1
                yield finding
        for finding in failures:
            # Where one address answers, others are a nuisance: many servers have no IPv6 to connect with.
            verdict = Verdict.NOTE if good else Verdict.PROBLEM
            yield Finding(finding.server_name, finding.subject, verdict, finding.text)

    async def _addresses(self, host: str) -> Sequence[str]:
        literal = host.strip("[]")
        return [literal] if _is_address(host) else await self._lookup.addresses(host)

    async def _certificate(self, name: ServerName, target: Target, address: str) -> Finding:
        place = f"{address} port {target.port}"
        wanted = target.tls_name or target.host.strip("[]")
        try:
            certificate = await peer_certificate(address, target.port, tls_name=wanted, tls=self._tls)
        except CallFailed as error:
            return Finding(name, "certificate", Verdict.PROBLEM, f"{place}, for {wanted}: {error}")
        if certificate.expires_ts is None:
            return Finding(name, "certificate", Verdict.NOTE, f"{place}: not checked (verify_certificates)")
        left_ms = certificate.expires_ts - self._clock.now_ms()
        text = f"{place}: good for {wanted}, expires in {left_ms // 86_400_000} days"
        return Finding(name, "certificate", Verdict.NOTE if left_ms < EXPIRY_MS_MIN else Verdict.GOOD, text)

    async def _answers(self, name: ServerName, target: Target) -> AsyncIterator[Finding]:
        """What answers there, and what time it has."""
        try:
            answer = await self._get(target, _VERSION_PATH)
        except CallFailed as error:
            yield Finding(name, "version", Verdict.PROBLEM, str(error))
            return
        yield Finding(name, "version", *_version(answer))
        date = answer.headers.get("date")
        if date is None:
            return
        try:
            difference_ms = int(parsedate_to_datetime(date).timestamp() * 1000) - self._clock.now_ms()
        except (ValueError, OverflowError):
            yield Finding(name, "clock", Verdict.NOTE, "The Date of its answers is no date")
            return
        seconds = round(difference_ms / 1000)
        if abs(difference_ms) > CLOCK_MS_MAX:
            yield Finding(name, "clock", Verdict.PROBLEM, f"Its clock differs from this one by {seconds} seconds")
        else:
            yield Finding(name, "clock", Verdict.GOOD, f"Its clock differs from this one by {seconds} seconds")

    async def _keys(self, name: ServerName, target: Target, own_keys: OwnKeys | None) -> AsyncIterator[Finding]:
        """The keys that it publishes; if it is this server, whether they are its own."""
        try:
            answer = await self._get(target, _KEYS_PATH)
            if answer.status != 200:
                raise InvalidParam(f"{_KEYS_PATH} is answered with {answer.status}")
            json = parse_json(answer.body, depth_max=JSON_DEPTH_MAX)
            published = parse_key_answer(json, server_name=name, denied=DeniedKeys(()), now_ms=self._clock.now_ms())
        except (CallFailed, NotJson, InvalidParam) as error:
            yield Finding(name, "keys", Verdict.PROBLEM, str(error))
            return
        left_ms = published.valid_until_ts - self._clock.now_ms()
        names = ", ".join(sorted(published.keys))
        if left_ms <= 0:
            yield Finding(name, "keys", Verdict.PROBLEM, f"{names}: no longer valid (valid_until_ts)")
        else:
            hours = left_ms // 3_600_000
            yield Finding(name, "keys", Verdict.GOOD, f"{names}: signed by themselves, valid for {hours} hours or more")
        if own_keys is not None:
            yield Finding(name, "keys", *_compare(published, own_keys))

    async def _get(self, target: Target, path: str) -> HttpAnswer:
        headers = {"Host": target.host_header, "Accept": "application/json"}
        request = OutgoingRequest(method="GET", url=target.base_url + path, headers=headers, tls_name=target.tls_name)
        return await self._http.fetch(request, LIMITS)


def _version(answer: HttpAnswer) -> tuple[Verdict, str]:
    """What an answer about the version of the software says."""
    if answer.status != 200:
        return Verdict.PROBLEM, f"{_VERSION_PATH} is answered with {answer.status}: is this a homeserver?"
    try:
        json = parse_json(answer.body, depth_max=JSON_DEPTH_MAX)
        server = json.get("server") if isinstance(json, dict) else None
        words = [str(server.get(word, "?")) for word in ("name", "version")] if isinstance(server, dict) else []
    except NotJson:
        words = []
    if not words:
        return Verdict.PROBLEM, f"{_VERSION_PATH} is not answered with JSON of a homeserver"
    return Verdict.GOOD, " ".join(words)[:TEXT_CHARACTERS_MAX]


def _compare(published: KeyAnswer, own_keys: OwnKeys) -> tuple[Verdict, str]:
    """Whether what is published under this server's name is what it signs with."""
    missing = [
        key.key_id
        for key in own_keys.active
        if key.key_id not in published.keys or published.keys[key.key_id].key.encode() != key.verify_key.encode()
    ]
    if missing:
        return Verdict.PROBLEM, f"The keys of another server are published there: {', '.join(missing)} is missing"
    return Verdict.GOOD, "The keys published there are those of this server"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
