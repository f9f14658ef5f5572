"""A real Synapse as a process, with SQLite and nothing that would make its answers depend on the moment."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.processes import free_port
from tests.waiting import wait_until

START_SECONDS_MAX: Final = 90.0
STOP_SECONDS_MAX: Final = 15.0

_NO_LIMIT: Final = {"per_second": 1_000_000, "burst_count": 1_000_000}
_LIMITS: Final = {
    **dict.fromkeys(
        (
            "rc_message",
            "rc_registration",
            "rc_registration_token_validity",
            "rc_joins_per_room",
            "rc_key_requests",
            "rc_3pid_validation",
            "rc_third_party_invite",
            "rc_room_creation",
            "rc_reports",
            "rc_user_directory",
            "rc_profile",
            "rc_delayed_event_mgmt",
        ),
        _NO_LIMIT,
    ),
    "rc_login": dict.fromkeys(("address", "account", "failed_attempts"), _NO_LIMIT),
    "rc_joins": dict.fromkeys(("local", "remote"), _NO_LIMIT),
    "rc_invites": dict.fromkeys(("per_room", "per_user", "per_issuer"), _NO_LIMIT),
    "rc_presence": {"per_user": _NO_LIMIT},
}


def python_of_synapse() -> str | None:
    """The Python that has Synapse installed: what `SYNAPSE_PYTHON` says; None if there is none."""
    python = os.environ.get("SYNAPSE_PYTHON", "")
    return python if python and Path(python).exists() else None


@dataclass
class SynapseProcess:
    """A Synapse in a folder of its own, which it keeps over restarts.

    Attributes:
        folder: where its configuration, data and log are.
        python: the Python that has it installed.
        server_name: its name.
        settings: what its configuration says besides, or in place of, what it says for every test.
    """

    folder: Path
    python: str
    server_name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log_file.read_text(errors="replace")

    async def start(self) -> None:
        """Starts it, and waits until it is healthy.

        Raises:
            AssertionError: it ended instead.
            TimeoutError: it does not become healthy in time.
        """
        assert self.process is None, "it is running"
        command = (self.python, "-m", "synapse.app.homeserver", "-c", str(self._config_file))
        is_new = not self.folder.exists()
        if is_new:
            self._configure()
        with self._log_file.open("ab") as log:
            if is_new:
                generating = await asyncio.create_subprocess_exec(*command, "--generate-keys", stdout=log, stderr=log)
                assert await generating.wait() == 0, self.log
            self.process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, cwd=self.folder)
        await wait_until(self._is_ready, seconds_max=START_SECONDS_MAX)

    async def stop(self) -> None:
        """Asks it to stop; what does not end in time is killed."""
        process, self.process = self.process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _configure(self) -> None:
        self.folder.mkdir()
        config = {**_config(self.folder, self.port, self.server_name), **self.settings}
        self._config_file.write_text(json.dumps(config))
        (self.folder / "log.yaml").write_text(json.dumps(_LOGGING))

    @property
    def _config_file(self) -> Path:
        return self.folder / "homeserver.yaml"

    @property
    def _log_file(self) -> Path:
        return self.folder / "synapse.log"

    async def _is_ready(self) -> bool:
        assert self.process is not None, "it is not running"
        assert self.process.returncode is None, self.log[-3000:]
        with suppress(aiohttp.ClientError, ConnectionError):
            async with aiohttp.ClientSession() as http, http.get(f"{self.url}/health") as answer:
                return answer.status == 200
        return False


@asynccontextmanager
async def synapse(folder: Path, python: str, server_name: str) -> AsyncIterator[str]:
    """The URL of a Synapse that runs until the block ends."""
    process = SynapseProcess(folder, python, server_name)
    try:
        await process.start()
        yield process.url
    finally:
        await process.stop()


_LOGGING: Final = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"level": "WARNING", "handlers": ["console"]},
}


def _config(folder: Path, port: int, server_name: str) -> dict[str, Any]:
    return {
        **_LIMITS,
        "server_name": server_name,
        "report_stats": False,
        "pid_file": str(folder / "pid"),
        "listeners": [
            {
                "port": port,
                "bind_addresses": ["127.0.0.1"],
                "type": "http",
                "tls": False,
                "resources": [{"names": ["client"]}],
            }
        ],
        "database": {"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}},
        "media_store_path": str(folder / "media"),
        "signing_key_path": str(folder / "signing.key"),
        "log_config": str(folder / "log.yaml"),
        "macaroon_secret_key": "macaroons",
        "form_secret": "forms",
        "trusted_key_servers": [],
        "enable_registration": True,
        "enable_registration_without_verification": True,
        "allow_guest_access": True,
        "bcrypt_rounds": 4,
        "password_config": {"policy": {"enabled": True, "minimum_length": 8}},
        "default_room_version": "12",
        "room_list_publication_rules": [{"action": "allow"}],
        "allow_public_rooms_without_auth": True,
        "presence": {"enabled": False},
        # An initial sync that is repeated shall be answered anew.
        "caches": {"sync_response_cache_duration": 0},
        "experimental_features": {"msc4222_enabled": True},
    }
