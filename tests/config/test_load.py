"""Reading the configuration: what it takes, and what it says of mistakes."""

import ipaddress
from pathlib import Path

import pytest

from homeserver.config import load
from homeserver.config.environment import unknown_variables, variables
from homeserver.config.load import ConfigError, load_config, parse_config
from homeserver.config.schema import Config


def read(text: str, folder: Path = Path("/srv"), **environment: str) -> Config:
    return parse_config(text, folder=folder, environment=environment)


def mistakes(text: str, folder: Path = Path("/srv"), **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, folder, **environment)
    return list(caught.value.mistakes)


def test_only_the_server_name_is_required() -> None:
    config = read("server_name: example.org")
    assert config.server_name == "example.org"
    assert config.base_url == "https://example.org/"
    assert config.data_dir == Path("/srv/data")
    assert config.database.url == "embedded"
    assert config.listeners[0].port == 8008
    assert not config.registration.enabled
    assert mistakes("{}") == ["server_name: is required"]
    assert mistakes("") == ["server_name: is required"]


def test_every_fixed_key_is_read(tmp_path: Path) -> None:
    for name in ("tls.crt", "tls.key", "ca.pem", "bridge.yaml"):
        (tmp_path / name).write_text("x")
    config = read(
        """
        server_name: example.org
        public_baseurl: https://matrix.example.org/
        data_dir: ./there
        listeners:
          - {port: 8008, bind_addresses: [127.0.0.1], resources: [client, metrics, health], x_forwarded: [127.0.0.1]}
          - {port: 8448, bind_addresses: [0.0.0.0], resources: [federation, media],
             tls: {certificate: tls.crt, private_key: tls.key}}
        database: {url: "postgresql://user@host:5432/database"}
        redis: {url: "redis://host:6379/0"}
        workers: 4
        registration: {enabled: true, shared_secret: hush, require_verification: false}
        federation:
          enabled: true
          verify_certificates: false
          ca_file: ca.pem
          ip_range_blocklist: [10.0.0.0/8, "::1"]
          trusted_key_servers: [{server_name: example.com, verify_keys: {"ed25519:a": abc}}]
        app_service_config_files: [bridge.yaml]
        rate_limits: {enabled: false, login: {per_second: 0.5, burst: 3}}
        presence: {enabled: false}
        """,
        tmp_path,
    )
    assert config.base_url == "https://matrix.example.org/"
    assert config.data_dir == tmp_path / "there"
    assert config.listeners[0].x_forwarded == (ipaddress.ip_network("127.0.0.1"),)
    assert config.listeners[1].tls is not None
    assert config.listeners[1].tls.certificate == tmp_path / "tls.crt"
    assert config.registration.shared_secret == "hush"
    assert config.federation.ip_range_blocklist[1] == ipaddress.ip_network("::1/128")
    assert config.federation.trusted_key_servers[0].verify_keys == {"ed25519:a": "abc"}
    assert config.app_service_config_files == (tmp_path / "bridge.yaml",)
    assert config.rate_limits.login.burst == 3
    assert config.rate_limits.join.burst == 20


def test_all_mistakes_are_told_at_once_with_their_paths() -> None:
    found = mistakes(
        """
        server_name: "not a name"
        listeners:
          - {prot: 8008, tls: {certificate: a.crt, private_key: b.key}}
          - {port: 99999, resources: [cleint]}
        workers: two
        database: {url: "mysql://host/x", pool_size_max: lots}
        federation: {ip_range_blocklist: [10.0.0.1/8, 5]}
        rate_limits: {login: {per_second: .nan, burst: 0}}
        limits: {sync_timeout_ms_max: 5y, request_timeout_ms: 9007199254740992}
        registraton: {}
        """
    )
    assert "listeners[0].prot: unknown key, did you mean port?" in found
    assert "listeners[0].port: is required" in found
    assert "listeners[0].tls.certificate: there is no file /srv/a.crt" in found
    assert "listeners[1].port: must be between 0 and 65535, not 99999" in found
    assert any(line.startswith("listeners[1].resources[0]:") and "did you mean client?" in line for line in found)
    assert "workers: must be an integer, not 'two'" in found
    assert "database.url: must be embedded or postgresql://… or postgres://…" in found
    assert "database.pool_size_max: must be an integer, not 'lots'" in found
    assert "federation.ip_range_blocklist[0]: 10.0.0.1/8 has host bits set" in found
    assert any(line.startswith("federation.ip_range_blocklist[1]:") for line in found)
    assert any(line.startswith("rate_limits.login.per_second:") for line in found)
    assert any(line.startswith("rate_limits.login.burst:") for line in found)
    assert any(line.startswith("limits.sync_timeout_ms_max:") for line in found)
    assert any(line.startswith("limits.request_timeout_ms:") for line in found)
    assert any(line.startswith("server_name:") for line in found)
    assert "registraton: unknown key, did you mean registration?" in found


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("server_name: a.b\nserver_name: c.d", "line 2, column 1: the key server_name stands there twice"),
        ("server_name: a.b\nredis: {url: null, url: null}", "line 2, column 20: the key url stands there twice"),
        ("server_name: [", "line 1, column 15"),
        ("- server_name", "the configuration must be a mapping of keys to values"),
        ("server_name: !!python/name:os.system", "could not determine a constructor"),
        ("server_name: a.b\nworkers: true", "workers: must be an integer, not true"),
        ("server_name: 5", "server_name: must be a server name, not 5"),
        ("server_name: a.b\ndata_dir: ''", "data_dir: must not be empty"),
        ('server_name: a.b\ndata_dir: "a\\0b"', "data_dir: must not hold a NUL"),
        ("server_name: a.b\nlisteners: []", "listeners: must not be empty"),
        ("server_name: a.b\nlisteners: {port: 1}", "listeners: must be a list, not a mapping"),
        ("server_name: a.b\nlisteners: [{port: 1, resources: []}]", "listeners[0].resources: must not be empty"),
        ("server_name: a.b\nregistration: 5", "registration: must be a mapping, not 5"),
        ("server_name: a.b\nworkers: 2", "redis.url: is needed when workers is more than 1"),
        ("server_name: a.b\nregistration: {enabled: true}", "registration.require_verification: nothing is set up"),
        ("server_name: a.b\nlisteners: [{port: 1}, {port: 1}]", "listeners[1].port: 127.0.0.1 port 1 is taken by lis"),
        ("server_name: a.b\ndatabase: {pool_size_min: 9, pool_size_max: 3}", "database.pool_size_min: must not be m"),
        ("server_name: a.b\nmedia: {storage: s3}", "media.s3.bucket: is needed where media are kept in S3"),
        (
            "server_name: a.b\nmedia: {storage: s3, s3: {bucket: b, access_key_id: c}}",
            "media.s3.access_key_id: is needed together with media.s3.secret_access_key",
        ),
        ("server_name: a.b\npublic_baseurl: ftp://x", "public_baseurl: must be https://… or http://…"),
        ("server_name: a.b\npublic_baseurl: https://x:y/", "public_baseurl: must be https://… or http://…"),
        ("server_name: a.b\n? [a]\n: b", "a key must be a text"),
    ],
)
def test_mistake(text: str, mistake: str) -> None:
    (found,) = mistakes(text)
    assert mistake in found


def test_an_extra_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "find_spec", lambda _: None)
    (found,) = mistakes("server_name: a.b\nmedia: {storage: s3, s3: {bucket: b}}")
    assert found.endswith("pip install 'heliograph[s3]'")
    assert read("server_name: a.b").media.storage == "files"


def test_deep_nesting_is_a_mistake() -> None:
    assert len(mistakes("server_name: " + "[" * 5000)) == 1


def test_times_and_sizes_may_have_units() -> None:
    config = read("server_name: a.b\nlimits: {sync_timeout_ms_max: 90s, keep_alive_ms: 1h, request_timeout_ms: 1500}")
    assert config.limits.sync_timeout_ms_max == 90_000
    assert config.limits.keep_alive_ms == 3_600_000
    assert config.limits.request_timeout_ms == 1500


def test_a_bare_off_is_the_word() -> None:
    assert read("server_name: a.b\nrooms: {encryption_default: off}").rooms.encryption_default == "off"


def test_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://host/x\n")
    assert read("server_name: a.b\ndatabase: {url_file: url}", tmp_path).database.url == "postgresql://host/x"
    assert mistakes("server_name: a.b\ndatabase: {url_file: absent}", tmp_path) == [
        f"database.url_file: cannot read {tmp_path}/absent: No such file or directory"
    ]
    assert "database.url_file: cannot stand beside url" in mistakes(
        "server_name: a.b\ndatabase: {url_file: url, url: embedded}", tmp_path
    )
    (tmp_path / "empty").write_text("\n")
    assert mistakes("server_name: a.b\nredis: {url_file: empty}", tmp_path) == [
        f"redis.url_file: {tmp_path}/empty is empty"
    ]


def test_secrets_are_not_shown() -> None:
    config = read("server_name: a.b\nregistration: {shared_secret: hush}\ndatabase: {url: 'postgres://u:hush@h/d'}")
    assert "hush" not in repr(config)


def test_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file")
    config = read(
        "server_name: a.b\ndatabase: {url: embedded}\nlimits:\nregistration: {shared_secret: old}",
        tmp_path,
        HELIOGRAPH_SERVER_NAME="c.d",
        HELIOGRAPH_DATABASE_URL="postgresql://host/x",
        HELIOGRAPH_WORKERS="1",
        HELIOGRAPH_REGISTRATION_ENABLED="false",
        HELIOGRAPH_REGISTRATION_SHARED_SECRET_FILE="secret",
        HELIOGRAPH_LIMITS_SYNC_TIMEOUT_MS_MAX="30s",
        HELIOGRAPH_PASSWORDS_POLICY_MINIMUM_LENGTH="12",
        HELIOGRAPH_REDIS_URL="redis://host",
    )
    assert config.server_name == "c.d"
    assert config.database.url == "postgresql://host/x"
    assert config.registration.shared_secret == "from a file"
    assert config.limits.sync_timeout_ms_max == 30_000
    assert config.passwords.policy.minimum_length == 12


def test_a_text_from_the_environment_is_not_read_as_yaml() -> None:
    config = read("server_name: a.b", HELIOGRAPH_REGISTRATION_SHARED_SECRET="0123")
    assert config.registration.shared_secret == "0123"


def test_mistakes_of_the_environment_are_told() -> None:
    assert mistakes("server_name: a.b", HELIOGRAPH_WORKERS="many") == ["workers: must be an integer, not 'many'"]
    assert mistakes("server_name: a.b\nlimits: 5", HELIOGRAPH_LIMITS_KEEP_ALIVE_MS="1") == [
        "limits: must be a mapping, not 5"
    ]
    assert unknown_variables({"HELIOGRAPH_DATABSE_URL": "x", "HELIOGRAPH_CONFIG": "x", "HOME": "x"}) == [
        "HELIOGRAPH_DATABSE_URL, did you mean HELIOGRAPH_DATABASE_URL?"
    ]


def test_each_variable_stands_for_one_setting() -> None:
    paths = list(variables().values())
    assert len(paths) == len(set(paths))
    assert variables()["HELIOGRAPH_DATABASE_URL"] == ("database", "url")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "absent.yaml", {})
    (tmp_path / "latin.yaml").write_bytes(b"server_name: \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "latin.yaml", {})


def test_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("server_name: a.b\ndata_dir: ../data")
    assert load_config(tmp_path / "config.yaml", {}).data_dir == tmp_path / "../data"
