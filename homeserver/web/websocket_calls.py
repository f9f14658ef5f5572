"""Finds the endpoint that a frame calls, by its operation or by method and path, and makes the request for it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from homeserver.core.errors import InvalidParam, MissingParam, Unrecognized
from homeserver.web.dispatch import Operation
from homeserver.web.endpoint import Access, Request
from homeserver.web.routing import Router, parse_query, path_parameters, path_takes_rest
from homeserver.web.websocket_frames import OWN_OPERATIONS, CallFrame, Query

SYNC_OPERATION = "sync"


class CallResolver:
    """The endpoints that can be called by frames: all but those for other servers."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        """Takes the endpoints.

        Raises:
            ValueError: one of them is called like an operation of the transport itself.
        """
        callable_ones = [operation for operation in operations if operation.endpoint.access is not Access.SERVER]
        self._by_name = {operation.name: operation for operation in callable_ones}
        self._router = Router(callable_ones)
        taken = OWN_OPERATIONS & self._by_name.keys()
        if taken:
            raise ValueError(f"no endpoint may be called {', '.join(taken)}")

    def resolve(self, frame: CallFrame, base: Request) -> tuple[Operation, Request]:
        """The endpoint that a frame calls, and the request to it.

        Args:
            frame: what the client sent.
            base: what is the same for all requests of the socket: token, address, and the like.

        Raises:
            Unrecognized: there is no such operation or path.
            MethodNotAllowed: the path is known, but not with this method.
            MissingParam, InvalidParam: the path's parameters are wrong.
        """
        path: Mapping[str, str]
        query = frame.query
        if frame.operation is None:
            raw_path, _, raw_query = frame.path.partition("?")
            operation, path = self._router.find(frame.method or "", raw_path)
            in_path = parse_query(raw_query)
            in_path.pop("access_token", None)
            query = {**in_path, **query}
        else:
            operation = self._named(frame.operation)
            path = _complete_path(operation.endpoint.path, frame.path_parameters)
        headers = {} if frame.content_type is None else {"content-type": frame.content_type}
        return operation, replace(
            base, operation=operation.name, method=operation.method, path=path, query=query, headers=headers
        )

    def resolve_sync(self, query: Query, base: Request) -> tuple[Operation, Request]:
        """The endpoint `sync`, and a request to it.

        Raises:
            Unrecognized: it is not served here.
        """
        operation = self._named(SYNC_OPERATION)
        return operation, replace(base, operation=operation.name, method=operation.method, query=query)

    def _named(self, name: str) -> Operation:
        operation = self._by_name.get(name)
        if operation is None:
            raise Unrecognized("Unrecognized operation")
        return operation


def _complete_path(path: str, given: Mapping[str, str]) -> Mapping[str, str]:
    """The parameters of a path, as given; the one that takes the rest may be absent or empty."""
    names = path_parameters(path)
    rest = names[-1] if path_takes_rest(path) else None
    unknown = given.keys() - set(names)
    if unknown:
        raise InvalidParam("The path has parameters that the operation does not know")
    for name in names:
        if name != rest and not given.get(name):
            raise MissingParam(f"Missing path.{name}")
    return given if rest is None else {rest: "", **given}
