"""The sockets that the server listens on: bound once, shared by all workers, and kept over restarts on SIGHUP."""

import json
import socket
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from homeserver.config.schema import ListenerConfig


class ListenError(Exception):
    """A port cannot be had; the message says which and why."""


BoundAddress = tuple[str, tuple[socket.socket, ...]]
"""An address as the settings name it, and its sockets: a name may stand for several."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener and its sockets, which are bound but need not listen yet.

    Attributes:
        config: its settings.
        bound: its addresses with their sockets.
    """

    config: ListenerConfig
    bound: tuple[BoundAddress, ...]

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """All of its sockets."""
        return tuple(chain.from_iterable(sockets for _, sockets in self.bound))

    @property
    def urls(self) -> list[str]:
        """Where it can be reached."""
        scheme = "http" if self.config.tls is None else "https"
        return [f"{scheme}://{_host(bound)}:{bound.getsockname()[1]}" for bound in self.sockets]

    def close(self) -> None:
        """Gives the ports back, unless another process, or a duplicate, has them too."""
        for bound in self.sockets:
            bound.close()


def bind_all(configs: Sequence[ListenerConfig], *, held: Sequence[Listener] = ()) -> tuple[Listener, ...]:
    """Binds all listeners, or none.

    Args:
        configs: their settings.
        held: what is bound already: where an address and its port are the same, the new listener has duplicates of
            those sockets, so nobody who connects meanwhile is refused. They stay open.

    Raises:
        ListenError: a port is taken, or an address is not ours.
    """
    known: defaultdict[tuple[str, int], list[tuple[socket.socket, ...]]] = defaultdict(list)
    for listener in held:
        for address, sockets in listener.bound:
            known[address, listener.config.port].append(sockets)
    listeners: list[Listener] = []
    try:
        for config in configs:
            listeners.append(Listener(config, ()))
            for address in config.bind_addresses:
                same = known[address, config.port]
                fresh = tuple(bound.dup() for bound in same.pop(0)) if same else _bind_address(address, config.port)
                listeners[-1] = Listener(config, (*listeners[-1].bound, (address, fresh)))
    except ListenError:
        close_all(listeners)
        raise
    return tuple(listeners)


def close_all(listeners: Sequence[Listener]) -> None:
    """Gives all ports back."""
    for listener in listeners:
        listener.close()


def descriptors(listeners: Sequence[Listener]) -> str:
    """The sockets' addresses, ports and numbers, as a text for a process that inherits them."""
    return json.dumps(
        [
            [listener.config.port, address, [bound.fileno() for bound in sockets]]
            for listener in listeners
            for address, sockets in listener.bound
        ]
    )


def inherit(configs: Sequence[ListenerConfig], text: str) -> tuple[Listener, ...]:
    """The listeners of the process that started this one, from the text of `descriptors`.

    Raises:
        ListenError: as for `bind_all`, if there are listeners now that the other process had not.
    """
    held = [
        Listener(
            ListenerConfig(port=port, bind_addresses=(address,)),
            ((address, tuple(socket.socket(fileno=number) for number in numbers)),),
        )
        for port, address, numbers in json.loads(text)
    ]
    try:
        return bind_all(configs, held=held)
    finally:
        close_all(held)


def _bind_address(address: str, port: int) -> tuple[socket.socket, ...]:
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        sockets.extend(_bind(family, target) for family, _, _, _, target in found)
    except OSError as error:
        for bound in sockets:
            bound.close()
        raise ListenError(f"Cannot listen on {address} port {port}: {error.strerror}") from error
    return tuple(sockets)


def _bind(family: int, target: tuple[object, ...]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(target)
    except OSError:
        bound.close()
        raise
    return bound


def _host(bound: socket.socket) -> str:
    host = str(bound.getsockname()[0])
    return f"[{host}]" if bound.family == socket.AF_INET6 else host
