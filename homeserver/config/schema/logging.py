"""What the server tells while it runs."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class LoggingConfig:
    """What is told on standard output. Never tokens, passwords, keys or messages."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """How much."""
    format: Literal["json", "console"] = "json"
    """`json` for machines, `console` for people."""
