"""The extra configuration for SyTest is one that this server takes."""

from pathlib import Path

from homeserver.config.load import parse_config

# What SyTest's runner says itself.
GIVEN = "server_name: localhost:8800\nregistration: {enabled: true, require_verification: false, "


def test_its_keys_are_known() -> None:
    extra = (Path(__file__).parent / "sytest.yaml").read_text()
    text = extra.replace("registration:\n  ", GIVEN).replace("guest_access: true\n", "guest_access: true}\n")
    config = parse_config(text, folder=Path("/"), environment={})
    assert config.registration.guest_access
    assert config.registration.enabled
    assert config.passwords.policy.minimum_length == 1
