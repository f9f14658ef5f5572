"""A real Synapse as a process, with SQLite and nothing that would make its answers depend on the moment."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
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


@asynccontextmanager
async def synapse(folder: Path, python: str, server_name: str) -> AsyncIterator[str]:
    """The URL of a Synapse that runs until the block ends."""
    folder.mkdir()
    port = free_port()
    config_file = folder / "homeserver.yaml"
    config_file.write_text(json.dumps(_config(folder, port, server_name)))
    (folder / "log.yaml").write_text(json.dumps(_LOGGING))
    command = (python, "-m", "synapse.app.homeserver", "-c", str(config_file))
    with (folder / "synapse.log").open("wb") as log:
        generating = await asyncio.create_subprocess_exec(*command, "--generate-keys", stdout=log, stderr=log)
        assert await generating.wait() == 0, (folder / "synapse.log").read_text()
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{port}"

    async def is_ready() -> bool:
        assert process.returncode is None, (folder / "synapse.log").read_text()[-3000:]
        with suppress(aiohttp.ClientError, ConnectionError):
            async with aiohttp.ClientSession() as http, http.get(f"{url}/health") as answer:
                return answer.status == 200
        return False

    try:
        await wait_until(is_ready, seconds_max=START_SECONDS_MAX)
        yield url
    finally:
        await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


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
