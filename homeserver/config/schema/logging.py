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
    requests: Literal["all", "failed"] = "failed"
    """Which requests get a line of their own: `all`, which costs a tenth of what a small request does, or those that
    this server `failed` to answer (status 500 and more). Metrics count all, and a reverse proxy can tell of each."""
