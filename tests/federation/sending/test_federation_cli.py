"""`homeserver federation`: what operators see of other servers, and what the doctor finds."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from homeserver.cli import main
from homeserver.core.clock import Clock
from homeserver.core.ids import ServerName
from homeserver.core.signing import SigningKey
from homeserver.runtime.clock import SystemClock
from storage.database import Database
from storage.destination_queues import NewEdu, QueuedEvent, insert_edus, upsert_queued_events
from tests.federation.certificates import CertificateAuthority
from tests.federation.peer import Peer
from tests.federation.sending.world import ELSEWHERE, THERE
from tests.rooms.workers import Worker

CLOCK: Clock = SystemClock()


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, ["federation", *words], catch_exceptions=False)


class Settings:
    """A configuration file."""

    def __init__(self, folder: Path, database_url: str, authority: CertificateAuthority) -> None:
        self.path = folder / "config.yaml"
        self.data_dir = folder / "data"
        self._config: dict[str, Any] = {
            "server_name": "localhost:1",
            "data_dir": str(self.data_dir),
            "database": {"url": database_url},
            "federation": {"ca_file": str(authority.ca_file), "ip_range_blocklist": []},
        }
        self.write()

    def write(self, **federation: Any) -> None:
        """Writes it, with changes."""
        name = federation.pop("server_name", self._config["server_name"])
        federation = {**self._config["federation"], **federation}
        self.path.write_text(json.dumps({**self._config, "server_name": name, "federation": federation}))


@pytest.fixture
def settings(tmp_path: Path, database_url: str, authority: CertificateAuthority) -> Settings:
    return Settings(tmp_path, database_url, authority)


async def in_thread(settings: Settings, *words: str) -> Result:
    """The command runs an event loop of its own, so it needs a thread; servers of the test answer meanwhile."""
    return await asyncio.to_thread(invoke, words[0], "-c", str(settings.path), *words[1:])


@pytest.fixture
async def backlog(db: Database) -> None:
    """One server fails and one is only slow."""
    event_id = "$0123456789012345678901234567890123456789012"
    async with db.transaction() as conn:
        await conn.execute("INSERT INTO rooms (room_id, room_version) VALUES ('!a:b', '12')")
        nid = await conn.fetchval(
            "INSERT INTO events (event_id, room_nid, depth, origin_server_ts, type, sender, client_json,"
            " federation_json) VALUES ($1, 1, 1, 1, 'm.test', '@a:b', '{}', '{}') RETURNING event_nid",
            event_id,
        )
        await conn.execute(
            "INSERT INTO destinations (destination, failing_since_ts, retry_at_ts) VALUES ($1, $2, $3)",
            THERE,
            1_600_000_000_000,
            CLOCK.now_ms() + 3_600_000,
        )
        await upsert_queued_events(conn, [QueuedEvent(THERE, 1, nid), QueuedEvent(THERE, 2, nid + 1)])
        await insert_edus(conn, [NewEdu(destination=ELSEWHERE, edu_type="m.x", content="{}")], now_ms=CLOCK.now_ms())


async def test_nothing_to_tell(settings: Settings) -> None:
    result = await in_thread(settings, "status")
    assert (result.exit_code, result.output) == (0, "Nothing waits, and every server answers\n")
    assert json.loads((await in_thread(settings, "status", "--json")).output) == []


@pytest.mark.usefixtures("backlog")
async def test_the_state_of_servers_and_what_waits(settings: Settings) -> None:
    result = await in_thread(settings, "status")
    header, elsewhere, there = result.output.splitlines()
    assert header.split() == ["SERVER", "STATE", "FAILING", "SINCE", "NEXT", "TRY", "ROOMS", "EVENTS", "EDUS"]
    assert elsewhere.split() == [ELSEWHERE, "answers", "now", "0", "0", "1"]
    assert there.split()[:4] == [THERE, "failing", "2020-09-13", "12:26:40Z"]
    assert there.split()[-3:] == ["2", "2", "0"]
    machines = json.loads((await in_thread(settings, "status", "--json")).output)
    assert [(each["destination"], each["state"], each["events"], each["edus"]) for each in machines] == [
        (ELSEWHERE, "answers", 0, 1),
        (THERE, "failing", 2, 0),
    ]


@pytest.mark.usefixtures("backlog")
async def test_one_server_with_the_events_that_wait(settings: Settings) -> None:
    result = await in_thread(settings, "status", THERE)
    assert "  waits: $0123456789012345678901234567890123456789012" in result.output
    unknown = await in_thread(settings, "status", "unheard.example")
    assert unknown.exit_code == 1
    assert "never sent anything" in unknown.output
    assert (await in_thread(settings, "status", "not a name")).exit_code == 2


@pytest.mark.usefixtures("backlog")
@pytest.mark.parametrize("words", [(THERE,), ("--all",)])
async def test_a_server_is_tried_again_at_once(settings: Settings, words: tuple[str, ...], db: Database) -> None:
    assert (await in_thread(settings, "retry", *words)).output == f"Will be tried: {THERE}\n"
    async with db.connection() as conn:
        assert await conn.fetchval("SELECT retry_at_ts FROM destinations WHERE destination = $1", THERE) == 0
    assert "Nothing to do" in (await in_thread(settings, "retry", *words)).output


@pytest.mark.parametrize("words", [(), (THERE, "--all")])
async def test_who_is_to_be_tried_must_be_clear(settings: Settings, words: tuple[str, ...]) -> None:
    assert (await in_thread(settings, "retry", *words)).exit_code == 2


def findings(result: Result) -> dict[str, list[tuple[str, str]]]:
    """What the doctor has found, as (verdict, text) by server and subject."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in result.output.splitlines():
        finding = json.loads(line)
        key = f"{finding['server_name']} {finding['subject']}"
        found.setdefault(key, []).append((finding["verdict"], finding["text"]))
    return found


async def test_the_doctor_finds_a_good_server_good(settings: Settings, peer: Peer) -> None:
    result = await in_thread(settings, "doctor", "--json", peer.name)
    found = findings(result)
    for subject in ("well-known", "certificate", "version", "clock", "keys"):
        verdicts = {verdict for verdict, _ in found[f"{peer.name} {subject}"]}
        # The certificates of the tests do not last long, which is noted.
        assert verdicts <= ({"good", "note"} if subject == "certificate" else {"good"}), found
    assert result.exit_code == 1, "this server itself, which does not run, cannot be reached"
    assert found["localhost:1 connection"][0][0] == "problem"


async def test_the_doctor_examines_this_server_as_others_see_it(settings: Settings, peer: Peer) -> None:
    """The peer stands in for what answers under this server's name: with this server's key, and with another."""
    settings.write(server_name=peer.name)
    foreign = await in_thread(settings, "doctor", "--json", peer.name)
    assert foreign.exit_code == 1
    assert "keys of another server" in foreign.output
    settings.data_dir.mkdir(exist_ok=True)
    (settings.data_dir / "signing.key").write_text(peer.key.format() + "\n")
    own = await in_thread(settings, "doctor", peer.name)
    assert own.exit_code == 0, own.output
    assert "those of this server" in own.output


async def test_the_doctor_tells_what_is_wrong(settings: Settings, peer: Peer) -> None:
    other = SigningKey.from_seed("a_other", b"x" * 32)
    peer.answers["GET /_matrix/federation/v1/version"] = lambda _: (404, {"errcode": "M_UNRECOGNIZED"})
    peer.answers["GET /_matrix/key/v2/server"] = lambda _: (
        200,
        {
            "server_name": peer.name,
            "valid_until_ts": 2_000_000_000_000,
            "verify_keys": {other.key_id: {"key": other.verify_key.encode()}},
        },
    )
    peer.answers["GET /_matrix/federation/v1/query/profile"] = lambda _: (401, {"errcode": "M_UNAUTHORIZED"})
    found = findings(await in_thread(settings, "doctor", "--json", peer.name))
    assert found[f"{peer.name} version"] == [
        ("problem", "/_matrix/federation/v1/version is answered with 404: is this a homeserver?")
    ]
    assert "not signed by the server itself" in found[f"{peer.name} keys"][0][1]
    assert "does not accept" in found[f"{peer.name} signature"][0][1]


async def test_the_doctor_tells_of_bad_certificates_and_forbidden_addresses(
    settings: Settings, peer: Peer, worker: Worker
) -> None:
    settings.write(ca_file=None)
    result = await in_thread(settings, "doctor", peer.name)
    assert f"problem  {peer.name}  certificate:" in result.output
    settings.write(ip_range_blocklist=["127.0.0.0/8", "::1/128"])
    result = await in_thread(settings, "doctor", peer.name)
    assert "ip_range_blocklist" in result.output
    nowhere = await in_thread(settings, "doctor", "--json", ServerName("nowhere.invalid:8448"))
    assert "has no address" in findings(nowhere)["nowhere.invalid:8448 address"][0][1]
