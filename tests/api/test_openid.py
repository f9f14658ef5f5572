"""OpenID tokens: https://spec.matrix.org/v1.19/client-server-api/#openid."""

import pytest

from homeserver.core.errors import UnknownToken
from tests.api.server import Client, Server, refused

PATH = "/user/@alice:test/openid/request_token"


async def test_a_token_says_who_the_user_is(server: Server, alice: Client) -> None:
    answer = await alice.post(PATH)
    assert (answer["token_type"], answer["matrix_server_name"], answer["expires_in"]) == ("Bearer", "test", 3600)
    assert await server.accounts.openid.user_of(answer["access_token"]) == "@alice:test"
    refused(await server.request("GET", "/account/whoami", token=answer["access_token"]), 401, "M_UNKNOWN_TOKEN")


async def test_a_token_ends(server: Server, alice: Client) -> None:
    token = (await alice.post(PATH))["access_token"]
    with pytest.raises(UnknownToken):
        await server.accounts.openid.user_of("other")
    with pytest.raises(UnknownToken):
        await server.accounts.openid.user_of(alice.token or "")
    server.clock.advance(3601)
    with pytest.raises(UnknownToken):
        await server.accounts.openid.user_of(token)


async def test_only_for_oneself(bob: Client) -> None:
    refused(await bob.call("POST", PATH, {}), 403, "M_FORBIDDEN")


async def test_the_body_is_an_object(alice: Client) -> None:
    refused(await alice.call("POST", PATH, []), 400, "M_BAD_JSON")
    assert (await alice.call("POST", PATH)).status == 200
