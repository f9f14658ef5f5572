"""The way of every request, whatever transport brought it: who asks, may it, not too often, is the body right; then the
endpoint's function, and its outcome or error as an answer.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden, GuestAccessForbidden, MissingToken, UserSuspended
from homeserver.web.answer import CLIENT_GONE, STATUS_CLIENT_GONE, Answer, encode_error, encode_response
from homeserver.web.body import ClientDisconnected, IncomingBody, parse_body
from homeserver.web.endpoint import Access, Endpoint, Request, Section
from homeserver.web.observation import REQUESTS_IN_FLIGHT, record_request
from homeserver.web.rate_limits import RateLimits
from homeserver.web.schemas import SchemaCheck, compile_schema
from homeserver.web.waiting import unless_ended
from homeserver.web.write_tasks import WriteTasks

Authenticate = Callable[[Endpoint, Request], Awaitable[Request]]
"""Finds out who asks, and returns the request with its `caller` (clients) or `origin` (servers).

For clients `access_token`, `query` and `headers` are there when it is called; it raises UnknownToken for a wrong token,
and UserLocked for a locked account unless the endpoint is `locked_allowed`. For servers `method`, `uri`, `headers`
(several `Authorization` joined by commas), `raw_body` and, if the endpoint has a schema, `body` are there; it raises
Unauthorized.
"""

Disconnected = Callable[[], Awaitable[object]]
"""Waits until the client goes away; may be called once the body is complete."""

_V3: Final = re.compile(r"^(/_matrix/(?:client|media))/v3/")


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """An endpoint made ready to be called: its schema is compiled."""

    endpoint: Endpoint
    check: SchemaCheck | None

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.endpoint.operation

    @property
    def method(self) -> str:
        """The endpoint's method."""
        return self.endpoint.method

    @property
    def paths(self) -> tuple[str, ...]:
        """The endpoint's path and its aliases; what lies below `v3` lay below `r0` once, where older clients look."""
        paths = (self.endpoint.path, *self.endpoint.aliases)
        older = (_V3.sub(r"\1/r0/", path) for path in paths if _V3.match(path))
        return tuple(dict.fromkeys((*paths, *older)))


def prepare(sections: Iterable[Section]) -> tuple[Operation, ...]:
    """Makes all endpoints of some sections ready.

    Raises:
        ValueError: a name stands for two endpoints for clients, or an endpoint contradicts itself.
    """
    operations: list[Operation] = []
    names: set[str] = set()
    for section in sections:
        for endpoint in section.endpoints:
            if endpoint.body_streamed and endpoint.body is not None:
                raise ValueError(f"{endpoint.operation}: a streamed body has no schema")
            if endpoint.access is not Access.SERVER:
                if endpoint.operation in names:
                    raise ValueError(f"{endpoint.operation} is the name of two endpoints")
                names.add(endpoint.operation)
            operations.append(Operation(endpoint, None if endpoint.body is None else compile_schema(endpoint.body)))
    return tuple(operations)


class Dispatcher:
    """Calls endpoints for transports."""

    def __init__(
        self,
        *,
        authenticate_client: Authenticate,
        authenticate_server: Authenticate,
        rate_limits: RateLimits,
        writes: WriteTasks,
        clock: Clock,
    ) -> None:
        """Takes its means: who asks, how often, and where writes run."""
        self._authenticate_client = authenticate_client
        self._authenticate_server = authenticate_server
        self._rate_limits = rate_limits
        self._writes = writes
        self._clock = clock

    async def dispatch(
        self,
        operation: Operation,
        request: Request,
        incoming: IncomingBody,
        *,
        transport: str,
        disconnected: Disconnected | None = None,
    ) -> Answer:
        """Answers a request. Nothing but a cancellation comes out of it as an exception.

        Args:
            operation: what is called.
            request: all of it but `caller`, `origin` and the body.
            incoming: the body, not read yet.
            transport: `http` or `websocket`, for the records.
            disconnected: tells when the client goes away, which ends what does not write.
        """
        started = self._clock.monotonic()
        status, size_bytes = STATUS_CLIENT_GONE, None
        REQUESTS_IN_FLIGHT.inc()
        try:
            try:
                if operation.endpoint.access is not Access.SERVER:
                    request = await self._admit(operation.endpoint, request)
                request = await _with_body(operation, request, incoming)
                if operation.endpoint.access is Access.SERVER:
                    request = await self._admit(operation.endpoint, request)
                if operation.check is not None:
                    operation.check(request.body)
            except ClientDisconnected:
                answer = CLIENT_GONE
            except Exception as error:  # noqa: BLE001 - the owner of each request: every error has an answer
                answer = encode_error(error)
            else:
                answer = await self._run(operation.endpoint, request, disconnected)
            status, size_bytes = answer.status, answer.size_bytes
            return answer
        finally:
            REQUESTS_IN_FLIGHT.dec()
            seconds = self._clock.monotonic() - started
            record_request(
                request,
                operation=operation.name,
                transport=transport,
                status=status,
                seconds=seconds,
                size_bytes=size_bytes,
            )

    async def authenticate(self, endpoint: Endpoint, request: Request) -> Request:
        """Finds out who asks, and whether they may call the endpoint at all.

        Raises:
            MissingToken, UnknownToken, UserLocked: there is no session.
            GuestAccessForbidden, UserSuspended, Forbidden: there is one that may not do this.
            Unauthorized: another server did not sign its request.
        """
        access = endpoint.access
        if access is Access.PUBLIC:
            return request
        if access is Access.SERVER:
            return await self._authenticate_server(endpoint, request)
        if request.access_token is None:
            if access is Access.OPTIONAL:
                return request
            raise MissingToken("The request has no access token")
        request = await self._authenticate_client(endpoint, request)
        caller = request.requester
        if caller.is_guest and access not in (Access.GUEST, Access.OPTIONAL):
            raise GuestAccessForbidden("Guests may not do this")
        if access is Access.ADMIN and not caller.is_admin:
            raise Forbidden("Only administrators of this server may do this")
        if access is Access.APPSERVICE and caller.appservice_id is None:
            raise Forbidden("Only application services may do this")
        if caller.is_suspended and not endpoint.suspended_allowed:
            raise UserSuspended("This account is suspended")
        return request

    async def _admit(self, endpoint: Endpoint, request: Request) -> Request:
        """Authenticates a request and counts it."""
        request = await self.authenticate(endpoint, request)
        await self._rate_limits.check(
            endpoint.rate_limit, requester=request.caller, origin=request.origin, ip=request.ip
        )
        return request

    async def _run(self, endpoint: Endpoint, request: Request, disconnected: Disconnected | None) -> Answer:
        """Calls the function: to its end, but for what waits, which ends when nobody waits for it any more."""
        if endpoint.writes:
            try:
                return await self._writes.run(_respond(endpoint, request))
            except Exception as error:  # noqa: BLE001 - as above
                return encode_error(error)
        if disconnected is None or not endpoint.waits or endpoint.body_streamed:
            return await _respond(endpoint, request)
        return await unless_ended(_respond(endpoint, request), disconnected) or CLIENT_GONE


async def _respond(endpoint: Endpoint, request: Request) -> Answer:
    """The answer of the endpoint's function, also where it fails."""
    try:
        return encode_response(await endpoint.function(request))
    except ClientDisconnected:
        return CLIENT_GONE
    except Exception as error:  # noqa: BLE001 - as above
        return encode_error(error)


async def _with_body(operation: Operation, request: Request, incoming: IncomingBody) -> Request:
    """The request with its body: parsed if the endpoint has a schema, else as bytes."""
    endpoint = operation.endpoint
    if endpoint.body_streamed:
        return replace(request, stream=incoming.stream(bytes_max=endpoint.body_bytes_max))
    raw_body = await incoming.read(bytes_max=endpoint.body_bytes_max)
    if endpoint.body is not None:
        return replace(request, raw_body=raw_body, body=parse_body(raw_body, required=endpoint.body_required))
    return replace(request, raw_body=raw_body) if raw_body else request
