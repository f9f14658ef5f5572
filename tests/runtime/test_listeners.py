"""The sockets of the listeners: new ones where they must be, the same ones where they can be."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from homeserver.config.schema import ListenerConfig
from homeserver.runtime.listeners import Listener, ListenError, bind_all, close_all, descriptors, inherit

ANY_PORT = ListenerConfig(port=0)


@contextmanager
def bound(*configs: ListenerConfig, held: tuple[Listener, ...] = ()) -> Iterator[tuple[Listener, ...]]:
    listeners = bind_all(configs, held=held)
    try:
        yield listeners
    finally:
        close_all(listeners)


def with_its_port(listener: Listener) -> ListenerConfig:
    return replace(listener.config, port=listener.sockets[0].getsockname()[1])


def accepts(listener: Listener) -> bool:
    """Whether who connects to the address of a listener gets to its socket."""
    listener.sockets[0].listen()
    with socket.create_connection(listener.sockets[0].getsockname()[:2]) as caller:
        accepted, address = listener.sockets[0].accept()
        accepted.close()
        return bool(address == caller.getsockname())


def test_an_address_that_stays_keeps_its_socket() -> None:
    with bound(ANY_PORT) as first:
        first[0].sockets[0].listen()
        with socket.create_connection(first[0].sockets[0].getsockname()[:2]) as caller:
            with bound(ANY_PORT, held=first) as second:
                close_all(first)
                accepted, address = second[0].sockets[0].accept()
                accepted.close()
                assert address == caller.getsockname(), "who was waiting already is accepted"


def test_listeners_of_any_port_stay_apart() -> None:
    with bound(ANY_PORT, ANY_PORT) as first, bound(ANY_PORT, ANY_PORT, ANY_PORT, held=first) as second:
        assert [listener.urls for listener in second[:2]] == [listener.urls for listener in first]
        assert len({url for listener in second for url in listener.urls}) == 3


def test_addresses_come_and_go() -> None:
    wide = ListenerConfig(port=0, bind_addresses=("127.0.0.1", "127.0.0.2"))
    with bound(wide) as first, bound(ANY_PORT, held=first) as second:
        assert second[0].urls == first[0].urls[:1]
        close_all(first)
        assert accepts(second[0])
        with bound(wide, held=second) as third:
            assert third[0].urls[0] == second[0].urls[0]
            assert len(third[0].sockets) == 2


def test_a_port_that_cannot_be_had_leaves_nothing_open() -> None:
    with bound(ANY_PORT) as held, bound(ANY_PORT) as taken:
        taken[0].sockets[0].listen()
        with pytest.raises(ListenError), bound(ANY_PORT, with_its_port(taken[0]), held=held):
            pass
        assert accepts(held[0])


def test_another_process_inherits_them() -> None:
    with bound(ANY_PORT, ListenerConfig(port=0, bind_addresses=("127.0.0.1", "127.0.0.2"))) as listeners:
        copies = tuple(
            Listener(each.config, tuple((address, tuple(s.dup() for s in sockets)) for address, sockets in each.bound))
            for each in listeners
        )
        text = descriptors(copies)
        inherited = inherit([listener.config for listener in listeners], text)
        for copy in copies:
            for one in copy.sockets:
                one.detach()
        try:
            assert [listener.urls for listener in inherited] == [listener.urls for listener in listeners]
            assert all(accepts(listener) for listener in inherited)
        finally:
            with suppress(OSError):
                close_all(inherited)
