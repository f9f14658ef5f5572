"""What `compose.py` builds and `server.py` runs: one worker's endpoints and the tasks behind them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from homeserver.config.schema import Resource
from homeserver.core.clock import Clock
from homeserver.web.dispatch import Dispatcher
from homeserver.web.endpoint import Section
from homeserver.web.http import WebSocketServing


@dataclass(frozen=True, slots=True)
class BackgroundTask:
    """Work that goes on for as long as the server runs: a follower, the hub, the bus.

    Attributes:
        name: what it is, for the log.
        run: does it, until it is cancelled.
    """

    name: str
    run: Callable[[], Awaitable[None]]


async def _is_always() -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """One worker, ready to be served.

    Attributes:
        sections: the endpoints of each resource that a listener may name.
        dispatcher: calls endpoints.
        clock: the clock.
        websocket: what serves WebSockets, where `client` is served.
        background: what runs beside the listeners; it is cancelled when they have ended.
        drain: called once when the server begins to stop: it ends the waiting of long polls.
        is_healthy: whether it can do its work.
    """

    sections: Mapping[Resource, Sequence[Section]]
    dispatcher: Dispatcher
    clock: Clock
    websocket: WebSocketServing | None = None
    background: Sequence[BackgroundTask] = ()
    drain: Callable[[], None] = lambda: None
    is_healthy: Callable[[], Awaitable[bool]] = _is_always
