"""The sockets that the server listens on: bound once, shared by all workers."""

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from homeserver.config.schema import ListenerConfig


class ListenError(Exception):
    """A port cannot be had; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener and its sockets, which are bound but do not listen yet.

    Attributes:
        config: its settings.
        sockets: one for each address.
    """

    config: ListenerConfig
    sockets: tuple[socket.socket, ...]

    @classmethod
    def bind(cls, config: ListenerConfig) -> Self:
        """Binds a listener's addresses.

        Raises:
            ListenError: a port is taken, or an address is not ours.
        """
        sockets: list[socket.socket] = []
        for address in config.bind_addresses:
            try:
                found = socket.getaddrinfo(address, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
                sockets.extend(_bind(family, target) for family, _, _, _, target in found)
            except OSError as error:
                for bound in sockets:
                    bound.close()
                raise ListenError(f"Cannot listen on {address} port {config.port}: {error.strerror}") from error
        return cls(config, tuple(sockets))

    @property
    def urls(self) -> list[str]:
        """Where it can be reached."""
        scheme = "http" if self.config.tls is None else "https"
        return [f"{scheme}://{_host(bound)}:{bound.getsockname()[1]}" for bound in self.sockets]

    def close(self) -> None:
        """Gives the ports back."""
        for bound in self.sockets:
            bound.close()


def bind_all(configs: Sequence[ListenerConfig]) -> tuple[Listener, ...]:
    """Binds all listeners, or none.

    Raises:
        ListenError: as for one.
    """
    listeners: list[Listener] = []
    try:
        listeners.extend(Listener.bind(config) for config in configs)
    except ListenError:
        close_all(listeners)
        raise
    return tuple(listeners)


def close_all(listeners: Sequence[Listener]) -> None:
    """Gives all ports back."""
    for listener in listeners:
        listener.close()


def descriptors(listeners: Sequence[Listener]) -> str:
    """The sockets' numbers, as a text for a process that inherits them."""
    return json.dumps([[bound.fileno() for bound in listener.sockets] for listener in listeners])


def inherit(configs: Sequence[ListenerConfig], text: str) -> tuple[Listener, ...]:
    """The listeners of the process that started this one, from the text of `descriptors`."""
    numbers = json.loads(text)
    return tuple(
        Listener(config, tuple(socket.socket(fileno=number) for number in own))
        for config, own in zip(configs, numbers, strict=True)
    )


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
