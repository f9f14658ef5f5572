"""The command line: what it prints, and how it ends."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from homeserver.cli import main
from homeserver.config.reference import example_yaml
from homeserver.config.schema import PasswordsConfig
from homeserver.core.version import VERSION
from homeserver.services.accounts.passwords import Passwords
from storage.database import Database
from storage.migrate import load_migrations
from storage.users import find_user


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False)


@pytest.fixture
def config_file(tmp_path: Path, database_url: str) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"server_name": "example.org", "database": {"url": database_url}}))
    return file


def test_version() -> None:
    assert invoke("--version").output == f"Heliograph, version {VERSION}\n"


def test_a_generated_configuration_has_no_mistakes(tmp_path: Path) -> None:
    generated = invoke("generate-config", "--server-name", "example.org", "--data-dir", "/var/lib/heliograph")
    assert generated.exit_code == 0
    assert generated.output == example_yaml(server_name="example.org", data_dir="/var/lib/heliograph")
    (tmp_path / "config.yaml").write_text(generated.output)
    checked = invoke("check-config", "-c", str(tmp_path / "config.yaml"))
    assert checked.exit_code == 0
    assert checked.output == f"{tmp_path}/config.yaml: no mistakes\n"


def test_a_wrong_server_name_is_refused() -> None:
    result = invoke("generate-config", "--server-name", "not a name")
    assert result.exit_code == 2
    assert "--server-name" in result.output


def test_every_mistake_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("server_name: a.b\nworkers: 0\nlisteners: [{prot: 1}]")
    result = invoke("check-config", "-c", str(tmp_path / "config.yaml"))
    assert result.exit_code == 1
    assert "workers: must be between 1 and 64, not 0" in result.output
    assert "listeners[0].prot: unknown key, did you mean port?" in result.output
    assert "listeners[0].port: is required" in result.output


def test_the_configuration_can_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.yaml").write_text("server_name: a.b")
    monkeypatch.setenv("HELIOGRAPH_CONFIG", str(tmp_path / "other.yaml"))
    monkeypatch.setenv("HELIOGRAPH_WORKRS", "2")
    result = invoke("check-config")
    assert result.exit_code == 0
    assert "HELIOGRAPH_WORKRS, did you mean HELIOGRAPH_WORKERS? is no setting" in result.output


def test_a_file_that_is_not_there_is_told() -> None:
    result = invoke("run", "-c", "/nowhere/config.yaml")
    assert result.exit_code == 1
    assert "cannot read /nowhere/config.yaml: No such file or directory" in result.output


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "config.yaml").write_text("server_name: a.b\ndata_dir: file/below")
    result = invoke("db", "status", "-c", str(tmp_path / "config.yaml"))
    assert result.exit_code == 1
    assert f"Error: {tmp_path}/file/below: Not a directory" in result.output


def test_the_schema_goes_forth_and_back(config_file: Path) -> None:
    newest = len(load_migrations())
    assert invoke("db", "status", "-c", str(config_file)).output == f"Version: {newest}\n"
    assert invoke("db", "migrate", "-c", str(config_file)).output == "Nothing to do\n"
    back = invoke("db", "migrate", "--to", str(newest - 1), "-c", str(config_file))
    assert back.output.startswith(f"Took back {newest:04}")
    status = invoke("db", "status", "-c", str(config_file))
    assert status.exit_code == 1
    assert f"To apply: {newest:04}" in status.output
    assert invoke("db", "migrate", "-c", str(config_file)).output.startswith(f"Applied {newest:04}")
    too_far = invoke("db", "migrate", "--to", str(newest + 1), "-c", str(config_file))
    assert too_far.exit_code == 1
    assert f"There is no version {newest + 1}" in too_far.output


def test_a_rebase_says_by_how_much(config_file: Path) -> None:
    result = invoke("db", "rebase", "-c", str(config_file))
    assert result.exit_code == 0
    assert int(result.output.removeprefix("Rebased by ")) > 0


def test_a_database_that_is_away_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("server_name: a.b\ndatabase: {url: 'postgresql://u@127.0.0.1:1/x'}")
    result = invoke("db", "status", "-c", str(tmp_path / "config.yaml"))
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")


def test_accounts_are_made_listed_and_ended(config_file: Path) -> None:
    config = ("-c", str(config_file))
    assert invoke("user", "create", "alice", "--password", "a password", *config).output == "@alice:example.org\n"
    made = invoke("user", "create", "boss", "--password", "a password", "--admin", "--displayname", "The Boss", *config)
    assert made.output == "@boss:example.org\n"
    assert invoke("user", "list", *config).output == "@alice:example.org\n@boss:example.org admin\n"
    again = invoke("user", "create", "alice", "--password", "another", *config)
    assert again.exit_code == 1
    assert again.output.startswith("Error: ")
    ended = invoke("user", "deactivate", "@alice:example.org", "--yes", *config)
    assert ended.output == "Deactivated\n"
    assert invoke("user", "list", *config).output == "@boss:example.org admin\n"
    assert invoke("user", "list", "--deactivated", *config).output == (
        "@alice:example.org deactivated\n@boss:example.org admin\n"
    )
    assert invoke("user", "reset-password", "alice", "--password", "x", *config).exit_code == 1


def test_a_password_is_asked_for_and_can_be_changed(config_file: Path, database_url: str) -> None:
    runner, config = CliRunner(), ("-c", str(config_file))
    made = runner.invoke(main, ["user", "create", "alice", *config], input="first password\nfirst password\n")
    assert made.output.endswith("@alice:example.org\n")
    assert "first password" not in made.output
    before = password_hash(database_url)
    assert fits("first password", before)
    changed = invoke("user", "reset-password", "alice", "--password", "second password", *config)
    assert changed.output == "Password changed\n"
    after = password_hash(database_url)
    assert fits("second password", after)
    assert not fits("first password", after)


def fits(password: str, found: str) -> bool:
    return asyncio.run(Passwords(PasswordsConfig()).verify(password, found))


def password_hash(database_url: str) -> str:
    async def ask() -> str:
        async with Database(database_url) as db, db.connection() as conn:
            user = await find_user(conn, "@alice:example.org")
            assert user is not None
            assert user.password_hash is not None
            return user.password_hash

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "words",
    [
        ("create", "Not A Name", "--password", "x"),
        ("create", "@alice:elsewhere.org", "--password", "x"),
        ("reset-password", "nobody", "--password", "x"),
        ("reset-password", "@alice:elsewhere.org", "--password", "x"),
        ("deactivate", "nobody", "--yes"),
    ],
)
def test_what_cannot_be_done_is_told(config_file: Path, words: tuple[str, ...]) -> None:
    result = invoke("user", *words, "-c", str(config_file))
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")


def test_an_account_can_be_made_before_the_first_start(tmp_path: Path, empty_database_url: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"server_name": "example.org", "database": {"url": empty_database_url}}))
    made = invoke("user", "create", "alice", "--password", "a password", "-c", str(file))
    assert made.output == "@alice:example.org\n"
