"""Which keys a process wants to hear of, and what it subscribes to for that: to keys, or to all keys of a kind.

Keys are remembered for a while after they were last wanted, for a client that has had its answer comes again. If there
are very many of a kind, all of that kind are subscribed to at once, so the subscriptions of a process are bounded.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.clock import Clock
from storage.bus.base import kind_of

KEYS_PER_KIND_MAX: Final = 20_000
FORGET_SECONDS: Final = 90.0


@dataclass(slots=True)
class _Kind:
    """What is wanted of a kind: when each key was last wanted, the kind itself for all of them."""

    wanted: dict[str, float] = field(default_factory=dict)
    subscribed: set[str] = field(default_factory=set)
    is_whole: bool = False
    fresh: list[str] = field(default_factory=list)


class Interests:
    """The interests of one process."""

    def __init__(self, *, clock: Clock, keys_per_kind_max: int = KEYS_PER_KIND_MAX) -> None:
        self._clock = clock
        self._keys_max = keys_per_kind_max
        self._kinds: defaultdict[str, _Kind] = defaultdict(_Kind)

    def want(self, keys: Iterable[str]) -> bool:
        """Notes that keys are wanted; True if `take_changes` has something new to subscribe to."""
        now = self._clock.monotonic()
        is_new = False
        for key in keys:
            kind = self._kinds[kind_of(key)]
            if key not in kind.wanted and (key == kind_of(key) or not kind.is_whole):
                kind.fresh.append(key)
                is_new = True
            kind.wanted[key] = now
        return is_new

    def take_changes(self) -> tuple[Collection[str], Collection[str]]:
        """What to subscribe to and what to leave, to hear of all that is wanted now."""
        subscribe: list[str] = []
        leave: list[str] = []
        for name, kind in self._kinds.items():
            if not kind.fresh:
                continue
            if self._is_whole(name, kind) == kind.is_whole:
                joining = [key for key in kind.fresh if key not in kind.subscribed]
                kind.subscribed.update(joining)
                subscribe += joining
                kind.fresh.clear()
            else:
                self._change(name, kind, subscribe, leave)
        return subscribe, leave

    def forget(self) -> Collection[str]:
        """Forgets what was not wanted for long; what to leave. What is to be subscribed to, `take_changes` tells."""
        before = self._clock.monotonic() - FORGET_SECONDS
        leave: list[str] = []
        for name, kind in self._kinds.items():
            kind.wanted = {key: at for key, at in kind.wanted.items() if at > before}
            if kind.is_whole and not self._is_whole(name, kind):
                # First the keys are subscribed to, then the kind is left.
                kind.fresh = list(kind.wanted) or [name]
            elif not kind.is_whole:
                left = kind.subscribed - kind.wanted.keys()
                kind.subscribed -= left
                leave += left
        return leave

    def begin_anew(self) -> None:
        """Says that nothing is subscribed to any more: `take_changes` gives all."""
        for kind in self._kinds.values():
            kind.subscribed.clear()
            kind.is_whole = False
            kind.fresh = list(kind.wanted)

    def _is_whole(self, name: str, kind: _Kind) -> bool:
        return name in kind.wanted or len(kind.wanted) > self._keys_max

    def _change(self, name: str, kind: _Kind, subscribe: list[str], leave: list[str]) -> None:
        """From keys to the whole kind, or back."""
        kind.is_whole = self._is_whole(name, kind)
        channels = {name} if kind.is_whole else set(kind.wanted)
        subscribe += channels - kind.subscribed
        leave += kind.subscribed - channels
        kind.subscribed = channels
        kind.fresh.clear()
