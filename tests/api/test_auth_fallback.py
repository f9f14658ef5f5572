"""Pages for stages of registration: https://spec.matrix.org/v1.19/client-server-api/#fallback."""

import base64
import hashlib
import re

import pytest

from homeserver.config.schema import TermsConfig
from tests.api.server import CONFIG, PASSWORD, Server, refused, running_server, with_changes

WANTED = {"username": "alice", "password": PASSWORD}


def page(stage: str) -> str:
    return f"/auth/{stage}/fallback/web"


async def new_session(server: Server) -> str:
    session: str = (await server.request("POST", "/register", json=WANTED)).json["session"]
    return session


async def test_a_stage_is_passed_in_a_browser(database_url: str) -> None:
    terms = (TermsConfig(id="tos", version="1", name="<Terms> & more", url="https://example.org/?a=1&b=2"),)
    async with running_server(database_url, with_changes(CONFIG, registration={"terms": terms})) as server:
        session = await new_session(server)
        shown = await server.request("GET", page("m.login.terms"), query={"session": session})
        assert shown.headers["content-type"].startswith("text/html")
        assert b"&lt;Terms&gt; &amp; more" in shown.body
        assert b'href="https://example.org/?a=1&amp;b=2"' in shown.body
        done = await server.request("POST", page("m.login.terms"), body=f"session={session}".encode())
        assert b"onAuthDone" in done.body
        reply = await server.request("POST", "/register", json={"auth": {"session": session}})
        assert reply.json["user_id"] == "@alice:test"


async def test_a_registration_token_is_given_in_a_browser(database_url: str) -> None:
    config = with_changes(CONFIG, registration={"requires_token": True})
    async with running_server(database_url, config) as server:
        async with server.db.connection() as conn:
            await conn.execute("INSERT INTO registration_tokens (token) VALUES ('party')")
        session, stage = await new_session(server), page("m.login.registration_token")
        assert b'name="token"' in (await server.request("GET", stage, query={"session": session})).body
        wrong = await server.request("POST", stage, body=f"session={session}&token=wrong".encode())
        assert wrong.status == 403
        assert b"not valid" in wrong.body
        assert (await server.request("POST", "/register", json={"auth": {"session": session}})).status == 401
        right = await server.request("POST", stage, body=f"session={session}&token=party".encode())
        assert right.status == 200
        assert (await server.request("POST", "/register", json={"auth": {"session": session}})).status == 200


async def test_the_script_is_the_one_that_the_page_allows(server: Server) -> None:
    session = await new_session(server)
    done = await server.request("POST", page("m.login.dummy"), body=f"session={session}".encode())
    script = re.search(rb"<script>(.*?)</script>", done.body, re.DOTALL)
    assert script is not None
    allowed = base64.b64encode(hashlib.sha256(script[1]).digest()).decode()
    policy = done.headers["content-security-policy"]
    assert f"'sha256-{allowed}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert done.headers["cache-control"] == "no-store"
    assert done.headers["referrer-policy"] == "no-referrer"


async def test_what_clients_say_is_escaped(server: Server) -> None:
    hostile = '"><script>alert(1)</script>'
    shown = await server.request("GET", page("m.login.dummy"), query={"session": hostile})
    assert b"<script>alert" not in shown.body
    done = await server.request("POST", page("m.login.dummy"), body=b"session=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    assert done.status == 403
    assert b"<script>alert" not in done.body


@pytest.mark.parametrize("stage", ["m.login.password", "m.login.recaptcha", "x"])
async def test_stages_without_a_page(server: Server, stage: str) -> None:
    refused(await server.request("GET", page(stage), query={"session": "x"}), 404, "M_NOT_FOUND")
    refused(await server.request("POST", page(stage), body=b"session=x"), 404, "M_NOT_FOUND")


@pytest.mark.parametrize("body", [b"", b"session=", b"session=unknown", b"\xff\xfe", b"session=%00"])
async def test_unknown_sessions(server: Server, body: bytes) -> None:
    assert (await server.request("POST", page("m.login.dummy"), body=body)).status == 403
    refused(await server.request("POST", page("m.login.dummy"), body=b"&" * 5000), 400, "M_INVALID_PARAM")
    refused(await server.request("GET", page("m.login.dummy")), 400, "M_MISSING_PARAM")
