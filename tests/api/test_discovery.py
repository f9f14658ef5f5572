"""What clients ask first: versions, capabilities, and where the server is."""

from homeserver.config.schema import SupportContactConfig
from tests.api.server import CONFIG, Client, Server, refused, running_server, with_changes


async def test_versions(server: Server) -> None:
    reply = await server.request("GET", "/_matrix/client/versions")
    assert [f"v1.{minor}" for minor in range(1, 20)] == reply.json["versions"][-19:]
    assert "r0.6.1" in reply.json["versions"]
    features = reply.json["unstable_features"]
    assert features["org.heliograph.ws"] is True
    assert features["uk.tcpip.msc4133.stable"] is True
    assert all(isinstance(value, bool) for value in features.values())


async def test_capabilities(alice: Client, admin: Client) -> None:
    capabilities = (await alice.get("/capabilities"))["capabilities"]
    assert capabilities["m.room_versions"]["default"] == "12"
    assert capabilities["m.room_versions"]["available"] == {str(number): "stable" for number in range(1, 13)}
    enabled = {name: value["enabled"] for name, value in capabilities.items() if "enabled" in value}
    assert enabled == {
        "m.change_password": True,
        "m.set_displayname": True,
        "m.set_avatar_url": True,
        "m.profile_fields": True,
        "m.3pid_changes": False,
        "m.get_login_token": True,
        "m.forget_forced_upon_leave": False,
    }
    assert "m.account_moderation" not in capabilities
    for_admins = (await admin.get("/capabilities"))["capabilities"]
    assert for_admins["m.account_moderation"] == {"suspend": True, "lock": True}


async def test_capabilities_are_for_users(server: Server) -> None:
    refused(await server.request("GET", "/capabilities"), 401, "M_MISSING_TOKEN")


async def test_well_known(database_url: str, server: Server) -> None:
    refused(await server.request("GET", "/.well-known/matrix/client"), 404, "M_NOT_FOUND")
    refused(await server.request("GET", "/.well-known/matrix/server"), 404, "M_NOT_FOUND")
    refused(await server.request("GET", "/.well-known/matrix/support"), 404, "M_NOT_FOUND")
    contacts = (SupportContactConfig(role="m.role.admin", matrix_id="@admin:test"),)
    told = {
        "client_base_url": "https://matrix.test",
        "server": "matrix.test:443",
        "support_contacts": contacts,
        "support_page": "https://test/help",
    }
    async with running_server(database_url, with_changes(CONFIG, well_known=told)) as other:
        reply = await other.request("GET", "/.well-known/matrix/client")
        assert reply.json == {"m.homeserver": {"base_url": "https://matrix.test"}}
        assert reply.headers["access-control-allow-origin"] == "*"
        assert (await other.request("GET", "/.well-known/matrix/server")).json == {"m.server": "matrix.test:443"}
        assert (await other.request("GET", "/.well-known/matrix/support")).json == {
            "contacts": [{"role": "m.role.admin", "matrix_id": "@admin:test"}],
            "support_page": "https://test/help",
        }
