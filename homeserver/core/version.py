"""The name and the version of this software, as `--version` and other servers are told."""

from typing import Final

NAME: Final = "Heliograph"
VERSION: Final = "0.1.0"
