"""Logs: one line per event, with its context, and never the variables of a traceback."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = """
import logging, structlog
from homeserver.config.schema import LoggingConfig
from homeserver.runtime.logging import configure_logging
configure_logging(LoggingConfig(level="info", format="{format}"))
structlog.contextvars.bind_contextvars(request_id="r1")
structlog.get_logger().debug("unheard")
structlog.get_logger().info("told", number=1, broken="\\ud800")
logging.getLogger("library").warning("from %s", "afar")
logging.getLogger("hypercorn.error").info("Running on")
def fail():
    password = "hush"
    raise ValueError("wrong")
try:
    fail()
except ValueError:
    logging.getLogger("library").exception("failed")
"""


def output(style: str) -> str:
    program = PROGRAM.replace("{format}", style)
    top = Path(__file__).parents[2]
    return subprocess.run([sys.executable, "-c", program], cwd=top, capture_output=True, text=True, check=True).stdout


def test_json_has_one_object_per_line() -> None:
    told, from_afar, failed = (json.loads(line) for line in output("json").splitlines())
    assert subset(told, {"event": "told", "level": "info", "number": 1, "broken": "\ud800", "request_id": "r1"})
    assert subset(from_afar, {"event": "from afar", "level": "warning", "logger": "library", "request_id": "r1"})
    assert failed["exception"][0]["exc_type"] == "ValueError"
    assert "hush" not in json.dumps(failed)


def test_the_console_is_for_people() -> None:
    text = output("console")
    assert "told" in text
    assert "from afar" in text
    assert "ValueError: wrong" in text
    assert "unheard" not in text
    assert "Running on" not in text


def subset(whole: dict[str, Any], part: dict[str, Any]) -> bool:
    return part.items() <= whole.items()
