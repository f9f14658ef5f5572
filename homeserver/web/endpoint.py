"""An endpoint as data: method, path, who may call it, what it takes, and the function that answers.

HTTP (`http.py`), the WebSocket (`websocket.py`) and the OpenAPI document (`openapi.py`) all read this data; an
endpoint's function knows none of them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from homeserver.core.errors import InvalidParam, MissingParam
from homeserver.core.ids import ServerName
from homeserver.core.requester import Requester

Json = Any
Schema = Mapping[str, Any]


class Access(Enum):
    """Who may call an endpoint."""

    PUBLIC = "public"
    """Anybody; a token is not looked at."""
    OPTIONAL = "optional"
    """Anybody; a token, if there is one, must be right."""
    USER = "user"
    """A user; guests are refused with M_GUEST_ACCESS_FORBIDDEN."""
    GUEST = "guest"
    """A user, guests too."""
    ADMIN = "admin"
    """A server administrator."""
    APPSERVICE = "appservice"
    """An application service."""
    SERVER = "server"
    """Another homeserver, by the signature of its request."""


class RateLimit(Enum):
    """The classes of rate limits; `config.rate_limits` gives each its rate and burst."""

    READ = "read"
    WRITE = "write"
    MESSAGE = "message"
    REGISTRATION = "registration"
    LOGIN = "login"
    JOIN = "join"
    INVITE = "invite"
    CREATE_ROOM = "create_room"
    REPORT = "report"
    MEDIA = "media"
    FEDERATION = "federation"


@dataclass(frozen=True, slots=True)
class Request:
    """What an endpoint's function is given, by whatever transport it came.

    Attributes:
        operation: the name of the endpoint.
        path: the path's parameters, percent-decoded.
        query: each query parameter with all its values, in order.
        body: the JSON body, checked against the endpoint's schema; `{}` if there was none.
        caller: who asks; None for public endpoints.
        origin: the asking server, for `Access.SERVER`.
        access_token: the token itself, for those who must end or refresh its session.
        ip: the caller's address, from a trusted proxy's header where there is one.
        raw_body: the body as it came.
        stream: the body as it comes, for endpoints with `body_streamed`; it ends with TooLarge beyond `body_bytes_max`.
        headers: the request's headers, names in lower case.
        method: GET, PUT, POST, DELETE.
        uri: the path with its query, as it came, for `Access.SERVER` (it is what the other server signed).
    """

    operation: str
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: Json = field(default_factory=dict)
    caller: Requester | None = None
    origin: ServerName | None = None
    access_token: str | None = None
    ip: str = ""
    user_agent: str = ""
    raw_body: bytes = b""
    stream: AsyncIterator[bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    uri: str = ""

    @property
    def requester(self) -> Requester:
        """Who asks, where the endpoint's access says that there is somebody."""
        assert self.caller is not None, f"{self.operation} is public, there may be no requester"
        return self.caller

    def query_text(self, name: str, default: str | None = None) -> str | None:
        """The last value of a query parameter."""
        values = self.query.get(name)
        return values[-1] if values else default

    def query_required(self, name: str) -> str:
        """The last value of a query parameter that must be there.

        Raises:
            MissingParam: it is not.
        """
        value = self.query_text(name)
        if value is None:
            raise MissingParam(f"Missing query parameter {name}")
        return value

    def query_integer(
        self, name: str, default: int, *, minimum: int = 0, maximum: int = 2**53 - 1, clamp: bool = False
    ) -> int:
        """The value of an integer query parameter; `clamp` says to move a too large one to the maximum.

        Raises:
            InvalidParam: it is no integer, or out of its range.
        """
        text = self.query_text(name)
        if text is None:
            return default
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 17):
            raise InvalidParam(f"Query parameter {name} must be an integer")
        value = int(text)
        if clamp and value > maximum:
            value = maximum
        if not minimum <= value <= maximum:
            raise InvalidParam(f"Query parameter {name} must be between {minimum} and {maximum}")
        return value

    def query_boolean(self, name: str, *, default: bool = False) -> bool:
        """The value of a boolean query parameter.

        Raises:
            InvalidParam: it is neither `true` nor `false`.
        """
        text = self.query_text(name)
        if text is None:
            return default
        if text not in ("true", "false"):
            raise InvalidParam(f"Query parameter {name} must be true or false")
        return text == "true"

    def query_choice(self, name: str, choices: Sequence[str], default: str | None = None) -> str | None:
        """The value of a query parameter that has a closed set of values.

        Raises:
            InvalidParam: it is another.
        """
        text = self.query_text(name)
        if text is None:
            return default
        if text not in choices:
            raise InvalidParam(f"Query parameter {name} must be one of {', '.join(choices)}")
        return text


@dataclass(frozen=True, slots=True)
class Response:
    """What an endpoint's function answers.

    Attributes:
        body: JSON (it may hold `orjson.Fragment`s), or bytes, or an async iterator of bytes, to be sent as they are.
        status: the HTTP status.
        headers: further headers; `Content-Type` only for bytes, `Content-Length` only for an iterator.
    """

    body: Json = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


EMPTY: Final = Response()

EndpointFunction = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation of an API.

    Attributes:
        operation: the specification's operationId in snake_case.
        method: GET, PUT, POST or DELETE.
        path: with parameters in braces, for example `/_matrix/client/v3/rooms/{room_id}/state`. A last parameter
            written `{name:path}` takes the rest of the path, slashes and an empty rest included.
        aliases: older or unstable paths of the same operation, with the same parameters.
        access: who may call it.
        body: the JSON schema of the body; None if it takes none.
        body_required: whether the body may be left out (then `{}`).
        body_bytes_max: the largest body that is read.
        body_streamed: the function reads the body itself, from `Request.stream` (uploads); there is no schema then.
        rate_limit: the class of rate limit that it counts against.
        writes: it changes something: it runs to its end even if the caller goes away.
        waits: it may wait for long: it is given up as soon as the caller goes away.
        suspended_allowed: suspended accounts may call it.
        locked_allowed: locked accounts may call it (logging out).
        function: what answers; its docstring is the description in the OpenAPI document.
    """

    operation: str
    method: str
    path: str
    function: EndpointFunction
    access: Access = Access.USER
    aliases: tuple[str, ...] = ()
    body: Schema | None = None
    body_required: bool = True
    body_bytes_max: int = 1024 * 1024
    body_streamed: bool = False
    rate_limit: RateLimit | None = None
    writes: bool = False
    waits: bool = False
    suspended_allowed: bool = True
    locked_allowed: bool = False


class Section:
    """A section of a specification: a title and its endpoints, in the order they were declared."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.endpoints: list[Endpoint] = []

    def endpoint(
        self,
        method: str,
        path: str,
        *,
        access: Access = Access.USER,
        aliases: tuple[str, ...] = (),
        body: Schema | None = None,
        body_required: bool = True,
        body_bytes_max: int = 1024 * 1024,
        body_streamed: bool = False,
        rate_limit: RateLimit | None = None,
        writes: bool | None = None,
        waits: bool = False,
        suspended_allowed: bool = True,
        locked_allowed: bool = False,
        operation: str | None = None,
    ) -> Callable[[EndpointFunction], EndpointFunction]:
        """Declares the decorated function as the endpoint; everything but GET writes unless it says otherwise."""

        def declare(function: EndpointFunction) -> EndpointFunction:
            self.endpoints.append(
                Endpoint(
                    operation=operation or str(getattr(function, "__name__", "")),
                    method=method,
                    path=path,
                    function=function,
                    access=access,
                    aliases=aliases,
                    body=body,
                    body_required=body_required,
                    body_bytes_max=body_bytes_max,
                    body_streamed=body_streamed,
                    rate_limit=rate_limit,
                    writes=method != "GET" if writes is None else writes,
                    waits=waits,
                    suspended_allowed=suspended_allowed,
                    locked_allowed=locked_allowed,
                )
            )
            return function

        return declare
