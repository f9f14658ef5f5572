"""Endpoints of every kind, for tests."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from homeserver.core.errors import NotFound
from homeserver.core.ids import UserId
from homeserver.web.endpoint import EMPTY, Access, RateLimit, Request, Response, Section
from storage.errors import DatabaseUnavailable


@dataclass
class Witness:
    """Sees what the endpoints were asked, and holds the slow ones up."""

    requests: list[Request] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def saw(self, request: Request) -> None:
        """Notes a request."""
        self.requests.append(request)

    @property
    def last(self) -> Request:
        """The latest request."""
        return self.requests[-1]

    async def hold_up(self) -> None:
        """Says that it has started, and waits until it may go on."""
        self.started.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        self.finished.set()


def echo_section(witness: Witness) -> Section:
    """Endpoints that answer at once."""
    s = Section("Echo")
    anything = {"type": "object"}

    @s.endpoint("GET", "/_matrix/client/versions", access=Access.PUBLIC)
    async def get_versions(request: Request) -> Response:
        """The simplest endpoint."""
        witness.saw(request)
        return Response({"versions": ["v1.19"]})

    @s.endpoint(
        "PUT",
        "/_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}",
        aliases=("/_matrix/client/r0/rooms/{room_id}/send/{event_type}/{txn_id}",),
        body=anything,
        rate_limit=RateLimit.MESSAGE,
        suspended_allowed=False,
        body_bytes_max=65536,
    )
    async def send_message(request: Request) -> Response:
        """Sends a message.

        With a second paragraph.
        """
        witness.saw(request)
        return Response({"event_id": "$" + request.path["txn_id"]})

    @s.endpoint("GET", "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/{state_key:path}")
    async def get_state(request: Request) -> Response:
        """Shows what it was asked."""
        witness.saw(request)
        return Response({"path": dict(request.path), "query": dict(request.query)})

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/login",
        access=Access.PUBLIC,
        body={"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}},
        rate_limit=RateLimit.LOGIN,
    )
    async def login(request: Request) -> Response:
        """Logs in."""
        witness.saw(request)
        return Response({"access_token": "alice"})

    @s.endpoint("POST", "/_matrix/client/v3/optional_body", body=anything, body_required=False)
    async def optional_body(request: Request) -> Response:
        """Takes a body, or none."""
        return Response({"body": request.body})

    @s.endpoint("POST", "/_matrix/client/v3/no_body")
    async def no_body(request: Request) -> Response:
        """Takes no body."""
        return Response({"body": request.body, "size": len(request.raw_body)})

    return s


def access_section(witness: Witness) -> Section:
    """One endpoint for each kind of access."""
    s = Section("Access")
    for access in (Access.OPTIONAL, Access.USER, Access.GUEST, Access.ADMIN, Access.APPSERVICE):

        @s.endpoint("GET", f"/_matrix/client/v3/access/{access.value}", access=access, operation=f"for_{access.value}")
        async def who(request: Request) -> Response:
            """Says who asks."""
            return Response({"user_id": None if request.caller is None else request.caller.user_id})

    @s.endpoint("POST", "/_matrix/client/v3/logout", locked_allowed=True)
    async def logout(request: Request) -> Response:
        """What locked accounts may do."""
        witness.saw(request)
        return EMPTY

    @s.endpoint(
        "PUT",
        "/_matrix/federation/v1/send/{txn_id}",
        access=Access.SERVER,
        body={"type": "object"},
        rate_limit=RateLimit.FEDERATION,
    )
    async def send_transaction(request: Request) -> Response:
        """For servers only."""
        witness.saw(request)
        return Response({"origin": request.origin})

    return s


def failing_section() -> Section:
    """Endpoints that fail."""
    s = Section("Failing")
    circle: list[Any] = []
    circle.append(circle)
    errors = {"not_found": NotFound("No such thing"), "away": DatabaseUnavailable(), "bug": KeyError("secret")}
    for name, error in errors.items():
        for method in ("GET", "PUT"):

            @s.endpoint(method, f"/_matrix/client/v3/fail/{name}", access=Access.PUBLIC, operation=f"{method}_{name}")
            async def fail(request: Request, error: Exception = error) -> Response:
                """Fails."""
                raise error

    responses = {
        "circle": Response({"a": circle}),
        "number": Response({"a": 2**70}),
        "header": Response({}, headers={"Location": "a\r\nb: c"}),
        "id_keys": Response({UserId("@a:b"): UserId("@c:d")}),
        "redirect": Response(
            b"", status=302, headers={"Location": "https://example.org/", "Cache-Control": "max-age=5"}
        ),
        "empty": Response(status=204),
        "page": Response(b"<p>", headers={"Content-Type": "text/html; charset=utf-8"}),
        "spliced": Response({"a": orjson.Fragment(b'{"b":1}')}),
    }
    for name, response in responses.items():

        @s.endpoint("GET", f"/_matrix/client/v3/respond/{name}", access=Access.PUBLIC, operation=f"respond_{name}")
        async def respond(request: Request, response: Response = response) -> Response:
            """Responds."""
            return response

    return s


def slow_section(witness: Witness) -> Section:
    """Endpoints that wait until the witness lets them go on, and such that move much data."""
    s = Section("Slow")

    @s.endpoint("GET", "/_matrix/client/v3/slow", waits=True)
    async def slow_read(request: Request) -> Response:
        """Waits."""
        await witness.hold_up()
        return EMPTY

    @s.endpoint("PUT", "/_matrix/client/v3/slow", body={"type": "object"}, body_required=False)
    async def slow_write(request: Request) -> Response:
        """Waits, and changes something."""
        await witness.hold_up()
        return EMPTY

    @s.endpoint("POST", "/_matrix/media/v3/upload", body_streamed=True, body_bytes_max=1_000_000)
    async def upload_content(request: Request) -> Response:
        """Counts the bytes of an upload."""
        assert request.stream is not None
        size_bytes = 0
        witness.started.set()
        try:
            async for part in request.stream:
                size_bytes += len(part)
        finally:
            witness.finished.set()
        witness.saw(replace(request, stream=None))
        return Response({"size": size_bytes, "content_type": request.headers.get("content-type")})

    @s.endpoint("GET", "/_matrix/client/v1/media/download/{size}")
    async def get_content(request: Request) -> Response:
        """Streams so many parts of a thousand bytes; a negative number says where it breaks off."""
        size = int(request.path["size"])

        async def parts() -> AsyncIterator[bytes]:
            try:
                for number in range(abs(size)):
                    if number == -size - 1:
                        raise OSError("disk")
                    yield b"x" * 1000
            finally:
                witness.finished.set()

        return Response(parts(), headers={"Content-Type": "image/png"})

    @s.endpoint("GET", "/_matrix/client/v3/large")
    async def large(request: Request) -> Response:
        """A large JSON."""
        return Response({"a": "x" * 3_000_000})

    return s
