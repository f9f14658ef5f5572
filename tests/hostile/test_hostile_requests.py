"""Whatever is sent to an endpoint: it is never answered with a 500, errors have the specification's form, and the
server works on afterwards.

Endpoints are taken from the server's own list, so that new ones are attacked too.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from homeserver.config.schema import Config, DatabaseConfig
from homeserver.config.values import Secret
from homeserver.core.ids import ServerName
from homeserver.runtime.clock import SystemClock
from homeserver.runtime.compose import compose
from homeserver.web.endpoint import Access, Endpoint
from tests.hostile.attacks import Attack, attacks, must_be_refused
from tests.hostile.world import SHARED_SECRET, World, new_world
from tests.processes import HomeserverProcess, homeserver
from tests.real_client import Answer, Refused, new_user

RESOURCES = ("client", "media", "admin", "health")
AT_ONCE = 6
COMPLAINTS_SHOWN_MAX = 60
# Some texts can be the name of a server, which then cannot be asked.
ANOTHER_SERVERS_FAULT = 502

SETTINGS = {
    "registration": {
        "enabled": True,
        "require_verification": False,
        "guest_access": True,
        "shared_secret": SHARED_SECRET,
    },
    # No sync of an attack shall wait for news.
    "limits": {"sync_timeout_ms_max": 50},
}


@dataclass
class Siege:
    """The server under attack, and what was wrong with its answers."""

    server: HomeserverProcess
    http: aiohttp.ClientSession
    complaints: list[str] = field(default_factory=list)
    requests: int = 0

    async def attack(self, endpoint: Endpoint) -> None:
        """Makes all attacks on an endpoint; an attacker who was logged out by one is replaced by another."""
        async with AsyncExitStack() as worlds:
            world = await self._world(worlds, endpoint)
            plan = list(attacks(endpoint, world.names))
            for number in range(len(plan)):
                answer = await self._send(world, endpoint, plan[number])
                if answer is not None and _has_lost_its_session(answer) and plan[number].authorization is None:
                    world = await self._world(worlds, endpoint)
                    plan = list(attacks(endpoint, world.names))
                    await self._send(world, endpoint, plan[number])
            for client in (world.attacker, world.other):
                try:
                    await client.sync()
                except Refused as refused:
                    if not _has_lost_its_session(refused.answer):
                        self.complaints.append(f"{endpoint.operation}: afterwards {refused}")

    async def _world(self, worlds: AsyncExitStack, endpoint: Endpoint) -> World:
        is_admin = endpoint.access is Access.ADMIN or "/admin/" in endpoint.path
        return await worlds.enter_async_context(new_world(self.server.url, is_admin=is_admin))

    async def _send(self, world: World, endpoint: Endpoint, attack: Attack) -> Answer | None:
        """Sends one attack, and notes what is wrong with its answer."""
        self.requests += 1
        authorization = f"Bearer {world.attacker.token}" if attack.authorization is None else attack.authorization
        headers = {"Authorization": authorization} if authorization else {}
        url = URL(self.server.url + attack.target, encoded=True)
        body = None if attack.body is None else BytesIO(attack.body)
        try:
            async with self.http.request(attack.method, url, data=body, headers=headers) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self._complain(endpoint, attack, f"there is no answer: {error!r}")
            return None
        is_json = response.content_type == "application/json"
        try:
            parsed = json.loads(content) if is_json else None
        except ValueError:
            self._complain(endpoint, attack, f"the answer is not JSON: {content[:200]!r}")
            return None
        answer = Answer(response.status, parsed, response.headers)
        mistake = _mistake(endpoint, attack, answer)
        if mistake:
            self._complain(endpoint, attack, f"{mistake}: {answer.status} {content[:200]!r}")
        return answer

    def _complain(self, endpoint: Endpoint, attack: Attack, mistake: str) -> None:
        shown = f"{attack.method} {attack.target[:150]} {(attack.body or b'')[:150]!r}"
        self.complaints.append(f"{endpoint.operation} ({attack.kind}): {mistake}\n        {shown}")


def _mistake(endpoint: Endpoint, attack: Attack, answer: Answer) -> str | None:
    """What is wrong with an answer."""
    if answer.status >= 500 and answer.status != ANOTHER_SERVERS_FAULT:
        return "an error of the server"
    if answer.status >= 400:
        body = answer.body if isinstance(answer.body, dict) else {}
        is_page = answer.headers.get("Content-Type", "").startswith("text/html")
        if is_page or (answer.status == 401 and "flows" in body):
            return None
        if not (isinstance(body.get("errcode"), str) and isinstance(body.get("error"), str)):
            return "an error without errcode and error"
    if must_be_refused(endpoint, attack) and answer.status != 401:
        return "a wrong token was not refused"
    return None


def _has_lost_its_session(answer: Answer) -> bool:
    """Whether an attack has ended the attacker's own session, or locked the other's account."""
    gone = ("M_UNKNOWN_TOKEN", "M_USER_LOCKED")
    return answer.status == 401 and isinstance(answer.body, dict) and answer.body.get("errcode") in gone


@pytest.fixture
async def server(database_url: str, tmp_path: Path) -> AsyncIterator[HomeserverProcess]:
    """The server under attack."""
    async with homeserver(tmp_path / "server", database_url, **SETTINGS) as running:
        yield running


@pytest.fixture
async def endpoints(database_url: str, tmp_path: Path) -> Sequence[Endpoint]:
    """All endpoints that clients can reach."""
    config = Config(
        server_name=ServerName("test"), database=DatabaseConfig(url=Secret(database_url)), data_dir=tmp_path
    )
    async with compose(config, SystemClock()) as application:
        sections = {id(section): section for name in RESOURCES for section in application.sections.get(name, ())}
    return [endpoint for section in sections.values() for endpoint in section.endpoints]


@pytest.mark.seconds_max(240)
async def test_no_request_breaks_the_server(server: HomeserverProcess, endpoints: Sequence[Endpoint]) -> None:
    slots = asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http:
        siege = Siege(server, http)

        async def attack(endpoint: Endpoint) -> None:
            async with slots:
                await siege.attack(endpoint)

        async with asyncio.TaskGroup() as tasks:
            for endpoint in endpoints:
                tasks.create_task(attack(endpoint))
    shown = "\n    ".join(siege.complaints[:COMPLAINTS_SHOWN_MAX])
    assert not siege.complaints, f"{len(siege.complaints)} complaints of {siege.requests} requests:\n    {shown}"
    assert server.mistakes == []
    assert siege.requests > 30 * len(endpoints)
    async with new_user(server.url, "afterwards") as user:
        room_id = await user.create_room()
        event_id = await user.send(room_id, "Still here")
        assert [event["event_id"] for event in await user.history(room_id)][-1] == event_id
