"""How long statements take, by the name of the constant that holds them; slow ones are told in the log.

Neither metrics nor log ever get to know parameters: house rule is that texts of statements have none in them.
"""

from collections.abc import Callable, Mapping
from typing import Final

import structlog
from prometheus_client import Histogram

STATEMENT_SECONDS: Final = Histogram(
    "heliograph_database_statement_seconds",
    "How long statements took, by the name of the constant that holds them.",
    ["statement"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
UNNAMED: Final = "other"
WORDS_MAX: Final = 12
"""So many words of a statement without a name are told."""

_log = structlog.get_logger()


class StatementTimes:
    """Records what each statement of one database took."""

    def __init__(self, names: Mapping[str, str], *, slow_ms: int) -> None:
        """Takes the names of statements, and how many milliseconds one takes that is slow; 0: none is."""
        self._names = names
        self._slow_seconds = slow_ms / 1000 if slow_ms else float("inf")
        # Found by the statement at once: looking a label up costs more than all the rest.
        self._observers: dict[str, Callable[[float], None]] = {}
        self._observe_unnamed = STATEMENT_SECONDS.labels(UNNAMED).observe

    def record(self, statement: str, seconds: float) -> None:
        """Records one that has ended, whether it succeeded or not."""
        observe = self._observers.get(statement)
        if observe is None:
            observe = self._observer(statement)
        observe(seconds)
        if seconds >= self._slow_seconds:
            name = self._names.get(statement) or " ".join(statement.split(maxsplit=WORDS_MAX)[:WORDS_MAX])
            _log.warning("slow_statement", statement=name, duration_ms=round(seconds * 1000, 1))

    def _observer(self, statement: str) -> Callable[[float], None]:
        name = self._names.get(statement)
        if name is None:
            return self._observe_unnamed
        observe = self._observers[statement] = STATEMENT_SECONDS.labels(name).observe
        return observe
