"""Signals: SIGTERM and SIGINT stop the server, SIGHUP has it take up its configuration anew."""

import asyncio
import signal
from collections.abc import Callable


def prepare_signals() -> None:
    """Until an event loop takes them over: a stop ends what runs in good order, and nothing else ends it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def on_stop_signal(stop: Callable[[], None]) -> None:
    """Calls `stop` on SIGTERM and SIGINT, in the running event loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def on_signal(number: signal.Signals, called: Callable[[], None]) -> None:
    """Has a function called on a signal, in the running event loop."""
    asyncio.get_running_loop().add_signal_handler(number, called)
