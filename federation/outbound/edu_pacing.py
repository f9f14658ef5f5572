"""Lets what passes in large rooms wait a little, so that it is told together: a receipt costs a request to each server.

A room with five hundred servers is told of receipts every ten seconds, one with ten at once.
"""

from collections.abc import Hashable, Sequence
from typing import Final

from federation.outbound.pending_edus import Change
from homeserver.core.clock import Clock

SENDS_PER_SECOND: Final = 50
"""How many servers are told, in the long run, of what passes in one room, or of one user."""

PAUSE_SECONDS_MAX: Final = 60.0


class EduPacing:
    """Changes by what they are about: a room or a user."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[Hashable, dict[Hashable, Change]] = {}
        # Before this time (monotonic) nothing about the subject is told.
        self._pauses_until: dict[Hashable, float] = {}

    def hold(self, subject: Hashable, key: Hashable, change: Change) -> None:
        """Lets a change wait for its subject's turn; of several under one key the last is told."""
        self._held.setdefault(subject, {})[key] = change

    def take_due(self) -> dict[Hashable, Sequence[Change]]:
        """The changes of those subjects whose turn it is."""
        now = self._clock.monotonic()
        self._pauses_until = {subject: until for subject, until in self._pauses_until.items() if until > now}
        due = [subject for subject in self._held if subject not in self._pauses_until]
        return {subject: list(self._held.pop(subject).values()) for subject in due}

    def told(self, subject: Hashable, *, servers: int) -> None:
        """Says that so many servers have been told of a subject."""
        pause_seconds = min(servers / SENDS_PER_SECOND, PAUSE_SECONDS_MAX)
        if pause_seconds > 1 / SENDS_PER_SECOND:
            self._pauses_until[subject] = self._clock.monotonic() + pause_seconds

    def seconds_to_next(self) -> float | None:
        """How long it is until something is due; None if nothing waits."""
        now = self._clock.monotonic()
        return min((max(self._pauses_until.get(subject, now) - now, 0.0) for subject in self._held), default=None)

    def oldest(self) -> int | None:
        """The position of the oldest change that waits; None if none does."""
        return min((change.position for held in self._held.values() for change in held.values()), default=None)
