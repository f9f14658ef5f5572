"""The wire of a fake homeserver: signed requests over TLS, out and in, by the specification alone.

It shares no code with `federation/`: where both agree about the format, it is because the specification says so.

https://spec.matrix.org/v1.19/server-server-api/#request-authentication
"""

import io
import json
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from yarl import URL

from homeserver.core.errors import MatrixError
from homeserver.core.ids import ServerName
from homeserver.core.signing import SigningKey, VerifyKey, sign_json, verify_json
from tests.federation.peer_room import now_ms

KEY_VALID_MS = 24 * 3600 * 1000
BODY_BYTES_MAX = 64 * 1024 * 1024
UNSIGNED_PATHS = ("/_matrix/key/", "/_matrix/federation/v1/version", "/.well-known/", "/_matrix/federation/v1/openid/")


@dataclass(frozen=True, slots=True)
class Received:
    """A request that came in.

    Attributes:
        origin: who has signed it; None where nobody need.
        target: the path with its query, as it came.
        path: the path's parameters, decoded.
        body: the JSON; None if there was none.
    """

    origin: ServerName | None
    method: str
    target: str
    path: Mapping[str, str]
    query: Mapping[str, Sequence[str]]
    body: Any

    @property
    def operation(self) -> str:
        """The last fixed word of the path, such as `send_join`, `state_ids`, `server`."""
        words = self.target.partition("?")[0].split("/")[2:]
        return next((word for word in words[2:] if word), words[-1])


@dataclass(frozen=True, slots=True)
class Reply:
    """What another server has answered to this one."""

    status: int
    body: Any

    @property
    def errcode(self) -> str | None:
        """The code of an error."""
        return self.body.get("errcode") if isinstance(self.body, dict) else None


Answer = Any
"""JSON, or a status with JSON, or a response of aiohttp, or a function that makes one of these of a `Received`."""

Respond = Callable[[Received], Awaitable[Answer] | Answer]


@dataclass(kw_only=True)
class SigningServer:
    """A server that signs what it asks, and checks who asks it.

    Attributes:
        trust: the authorities that it trusts.
        answers: what it answers, by method and path template.
        received: all requests, in order.
        faults: what was wrong about the requests of others.
        keys: the keys of others that it has seen.
    """

    name: ServerName
    key: SigningKey
    trust: ssl.SSLContext
    http: aiohttp.ClientSession
    answers: dict[str, Respond | Answer] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    keys: dict[tuple[str, str], VerifyKey] = field(default_factory=dict)

    def asked(self, operation: str) -> list[Received]:
        """The requests of one operation, such as `get_missing_events`, so far."""
        return [request for request in self.received if request.operation == operation]

    async def ask(
        self,
        destination: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        lie: Mapping[str, Any] | None = None,
        **query: Any,
    ) -> Reply:
        """Sends a signed request.

        Args:
            destination: the server, `localhost:PORT`.
            method: the method.
            path: the path, percent-encoded.
            body: JSON, or bytes as they are.
            lie: members of the signed object that are other than they should be.
            query: the query, without what is None.
        """
        given = {name: value for name, value in query.items() if value is not None}
        target = f"{path}?{urlencode(given, doseq=True)}" if given else path
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        headers = {"Authorization": self.authorization(destination, method, target, body, lie or {})}
        if raw:
            headers["Content-Type"] = "application/json"
        url = URL(f"https://{destination}{target}", encoded=True)
        async with self.http.request(
            method, url, data=io.BytesIO(raw) if raw else None, headers=headers, ssl=self.trust
        ) as response:
            return Reply(response.status, await response.json(content_type=None))

    def authorization(self, destination: str, method: str, target: str, body: Any, lies: Mapping[str, Any]) -> str:
        """The header that signs a request."""
        signed: dict[str, Any] = {"method": method, "uri": target, "origin": self.name, "destination": destination}
        if body is not None and not isinstance(body, bytes):
            signed["content"] = body
        signed |= lies
        signature = sign_json(signed, self.name, self.key)["signatures"][self.name][self.key.key_id]
        return (
            f'X-Matrix origin="{signed["origin"]}",destination="{signed["destination"]}",'
            f'key="{self.key.key_id}",sig="{signature}"'
        )

    async def key_of(self, server: ServerName, key_id: str) -> VerifyKey | None:
        """A key of another server, as that publishes it."""
        if (server, key_id) not in self.keys:
            async with self.http.get(f"https://{server}/_matrix/key/v2/server", ssl=self.trust) as response:
                published = await response.json()
            for each, value in published["verify_keys"].items():
                self.keys[server, each] = VerifyKey.parse(key_id=each, key_base64=value["key"])
        return self.keys.get((server, key_id))

    def server_keys(self, *, valid_ms: int = KEY_VALID_MS, old: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What it publishes of its keys."""
        published = {
            "server_name": self.name,
            "valid_until_ts": now_ms() + valid_ms,
            "verify_keys": {self.key.key_id: {"key": self.key.verify_key.encode()}},
            "old_verify_keys": dict(old or {}),
        }
        return sign_json(published, self.name, self.key)

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers any request."""
        target = request.raw_path
        raw = await request.clone(client_max_size=BODY_BYTES_MAX).read()
        body = json.loads(raw) if raw else None
        operation, parameters = self._find(request.method, target.partition("?")[0])
        query = {name: request.query.getall(name) for name in request.query}
        try:
            origin = await self._origin(request, target, body)
        except (MatrixError, LookupError, ValueError, aiohttp.ClientError) as error:
            self.faults.append(f"{request.method} {target}: {error!r}")
            return web.json_response({"errcode": "M_UNAUTHORIZED", "error": str(error)}, status=401)
        received = Received(origin, request.method, target, parameters, query, body)
        self.received.append(received)
        answer: Answer = (404, {"errcode": "M_UNRECOGNIZED", "error": "Not known"})
        if operation is not None:
            answer = self.answers[operation]
        if callable(answer):
            answer = answer(received)
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, web.StreamResponse):
            return answer
        status, content = answer if isinstance(answer, tuple) else (200, answer)
        return web.json_response(content, status=status)

    def _find(self, method: str, path: str) -> tuple[str | None, dict[str, str]]:
        for operation in self.answers:
            wanted, _, template = operation.partition(" ")
            pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(template))
            match = re.fullmatch(pattern, path)
            if match is not None and wanted == method:
                return operation, {
                    name: URL(f"/{text}", encoded=True).path[1:] for name, text in match.groupdict().items()
                }
        return None, {}

    async def _origin(self, request: web.BaseRequest, target: str, body: Any) -> ServerName | None:
        """Who has signed a request; what is below `/key/` and the version need not be signed."""
        header = request.headers.get("Authorization")
        if header is None:
            if not target.startswith(("/_matrix/key/", "/_matrix/federation/v1/version", "/.well-known/")):
                raise ValueError("the request is not signed")
            return None
        fields = {
            name.lower(): text for name, text in re.findall(r'(\w+)="?([^",]*)"?', header.removeprefix("X-Matrix "))
        }
        if fields.get("destination", self.name) != self.name:
            raise ValueError(f"the request is for {fields['destination']}")
        origin = ServerName.parse(fields["origin"])
        key = await self.key_of(origin, fields["key"])
        signed: dict[str, Any] = {"method": request.method, "uri": target, "origin": origin, "destination": self.name}
        signed |= {} if body is None else {"content": body}
        signed["signatures"] = {origin: {fields["key"]: fields["sig"]}}
        if key is None or not verify_json(signed, origin, key):
            raise ValueError("the signature is wrong")
        return origin
