"""Serves endpoints over HTTP, on a Quart application.

The endpoints hang on Quart's hook for ASGI middleware (`app.asgi_app`), in front of Quart's own routes, which serve
what else there is: blueprints with pages, and the life-span. Measured on Hypercorn with uvloop, in CPU time per trivial
request (GET / PUT with a JSON body): Quart's routing with 200 rules 266 / 328 µs, one catch-all Quart route that leads
to `routing.py` 247 / 281 µs, this hook 162 / 162 µs, a bare ASGI function 138 / 154 µs. Besides, Quart takes in a body
as fast as it comes, before a route has said how large it may be; here it stays in the socket until somebody reads it.

https://spec.matrix.org/v1.19/client-server-api/#api-standards
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from quart import Quart
from quart import Response as QuartResponse
from structlog.contextvars import bind_contextvars
from werkzeug.exceptions import HTTPException

from homeserver.core.clock import Clock
from homeserver.core.errors import MatrixError, Unrecognized
from homeserver.web.access_token import access_token_of
from homeserver.web.answer import Answer, encode_error
from homeserver.web.body import AsgiBody, Receive
from homeserver.web.client_address import TrustedProxies
from homeserver.web.cors import CORS_HEADERS
from homeserver.web.dispatch import Dispatcher, Operation
from homeserver.web.endpoint import Access, Request
from homeserver.web.http_request import RequestIds, Scope, headers_of, peer_of, raw_path_of
from homeserver.web.http_response import Send, send_answer
from homeserver.web.observation import UNRECOGNIZED, record_request
from homeserver.web.routing import Router, parse_query

_OWN_PREFIXES: Final = ("/_matrix/", "/_synapse/")

# A request that gives its length in two ways may smuggle another one past a proxy: nothing behind it is listened to.
# https://www.rfc-editor.org/rfc/rfc9112#section-6.1-15
_AMBIGUOUS_FRAMING: Final = replace(
    encode_error(MatrixError("A request has either Content-Length or Transfer-Encoding")),
    headers={"Connection": "close"},
)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """What an operator may choose.

    Attributes:
        trusted_proxies: networks (CIDR) whose `X-Forwarded-For` is believed.
        body_seconds: the time for a body that is read as a whole.
        body_chunk_seconds: the time for each part of an upload.
        send_seconds: the time for each part of an answer to be taken by the client.
        discard_seconds: how long the rest of a body that nobody wants is taken in before the connection is closed.
    """

    trusted_proxies: Sequence[str] = ()
    body_seconds: float = 60.0
    body_chunk_seconds: float = 30.0
    send_seconds: float = 60.0
    discard_seconds: float = 3.0


class WebSocketServing(Protocol):
    """What serves WebSockets (`websocket.py`)."""

    path: str

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one socket to its end."""
        ...


def mount(
    app: Quart,
    *,
    operations: Sequence[Operation],
    dispatcher: Dispatcher,
    clock: Clock,
    settings: HttpSettings,
    websocket: WebSocketServing | None = None,
) -> None:
    """Puts endpoints in front of a Quart application.

    Whatever has none of their paths goes on to Quart, unless it lies below `/_matrix` or `/_synapse`; Quart's own
    errors are answered in Matrix's form too.

    Raises:
        ValueError: two endpoints claim one path, or a proxy network is none.
    """
    transport = _HttpTransport(Router(operations), dispatcher, clock, settings)
    quart_app: Callable[..., Any] = app.asgi_app

    async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http" and await transport.serve(scope, receive, send):
            return
        if kind == "websocket" and websocket is not None and scope["path"] == websocket.path:
            await websocket.serve(scope, receive, send)
        elif kind == "websocket" and not _may_be_quarts(scope["path"]):
            await send({"type": "websocket.close", "code": 1000})
        else:
            await quart_app(scope, receive, send)

    async def refuse(error: HTTPException) -> QuartResponse:
        unknown = error.code in (404, 405)
        refusal = Unrecognized("Unrecognized request") if unknown else MatrixError(error.name)
        refusal.status = error.code or 500
        answer = encode_error(refusal)
        return QuartResponse(answer.body, answer.status, content_type=answer.content_type)

    async def allow_origins(response: QuartResponse) -> QuartResponse:
        response.headers.update(CORS_HEADERS)
        return response

    app.register_error_handler(HTTPException, refuse)
    app.after_request(allow_origins)
    app.asgi_app = asgi_app  # type: ignore[method-assign, assignment]


class _HttpTransport:
    """Turns ASGI's messages into requests, and answers into messages."""

    def __init__(self, router: Router[Operation], dispatcher: Dispatcher, clock: Clock, settings: HttpSettings) -> None:
        self._router = router
        self._dispatcher = dispatcher
        self._clock = clock
        self._settings = settings
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self._request_ids = RequestIds()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answers a request; False, with nothing done, if it is for Quart's own routes."""
        method: str = scope["method"]
        raw_path = raw_path_of(scope)
        headers = headers_of(scope)
        request_id = self._request_ids.choose(headers.get("x-request-id"))
        body = AsgiBody(
            receive,
            content_length=headers.get("content-length"),
            read_seconds=self._settings.body_seconds,
            chunk_seconds=self._settings.body_chunk_seconds,
            is_absent=_says_that_it_has_no_body(scope, headers),
        )
        answer: Answer | None
        if "transfer-encoding" in headers and "content-length" in headers:
            answer = _AMBIGUOUS_FRAMING
        elif method == "OPTIONS":
            answer = Answer(204, b"")
        else:
            bind_contextvars(request_id=request_id)
            answer = await self._answer(scope, method, raw_path, headers, body)
            if answer is None:
                return False
        await send_answer(
            answer,
            method=method,
            request_id=request_id,
            body=body,
            send=send,
            send_seconds=self._settings.send_seconds,
            discard_seconds=self._settings.discard_seconds,
        )
        return True

    async def _answer(
        self, scope: Scope, method: str, raw_path: str, headers: Mapping[str, str], body: AsgiBody
    ) -> Answer | None:
        """The answer of the endpoint, or the error if there is none; None if Quart shall look for it."""
        request = Request(
            operation=UNRECOGNIZED,
            method=method,
            ip=self._proxies.client_address(peer=peer_of(scope), forwarded_for=headers.get("x-forwarded-for")),
        )
        started = self._clock.monotonic()
        try:
            operation, path = self._router.find(method, raw_path)
            request = _with_details(request, scope, operation, path, raw_path, headers)
        except MatrixError as error:
            if isinstance(error, Unrecognized) and error.status == 404 and _may_be_quarts(scope["path"]):
                return None
            answer = encode_error(error)
            record_request(
                request,
                operation=UNRECOGNIZED,
                transport="http",
                status=answer.status,
                seconds=self._clock.monotonic() - started,
                size_bytes=answer.size_bytes,
            )
            return answer
        return await self._dispatcher.dispatch(
            operation, request, body, transport="http", disconnected=body.disconnected
        )


def _says_that_it_has_no_body(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether it is known, before anything of it is read, that a request has no body: in HTTP/1, headers tell."""
    if scope["method"] not in ("GET", "HEAD") or not scope.get("http_version", "").startswith("1"):
        return False
    return "content-length" not in headers and "transfer-encoding" not in headers


def _may_be_quarts(path: str) -> bool:
    """Whether Quart's own routes can have the path; it does not bear all that an HTTP request may hold in its place."""
    return path.startswith("/") and not path.startswith(_OWN_PREFIXES)


def _with_details(
    request: Request,
    scope: Scope,
    operation: Operation,
    path: Mapping[str, str],
    raw_path: str,
    headers: Mapping[str, str],
) -> Request:
    """The request to an endpoint, with all but its caller and body.

    Raises:
        InvalidParam: the query is wrongly encoded.
    """
    raw_query: str = scope["query_string"].decode("latin-1")
    query = parse_query(raw_query)
    uri, access_token = "", None
    if operation.endpoint.access is Access.SERVER:
        uri = f"{raw_path}?{raw_query}" if raw_query else raw_path
    else:
        access_token = access_token_of(headers=headers, query=query)
        query.pop("access_token", None)
    return Request(
        operation=operation.name,
        path=path,
        query=query,
        access_token=access_token,
        ip=request.ip,
        user_agent=headers.get("user-agent", ""),
        headers=headers,
        method=request.method,
        uri=uri,
    )
