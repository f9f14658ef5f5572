"""The server's own keys: made once, changed by the operator, published for as long as they are needed."""

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from homeserver.cli import main
from homeserver.core.errors import InvalidParam
from homeserver.core.signing import SigningKey
from homeserver.runtime.signing_key import (
    FILE_NAME,
    OLD_FILE_NAME,
    RESTART_MS,
    load_own_keys,
    load_signing_key,
    new_signing_key,
    rotate_signing_key,
)

NOW = 1_700_000_000_000


def test_a_key_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    key = load_signing_key(folder)
    assert load_signing_key(folder) == key
    assert [path.name for path in folder.iterdir()] == [FILE_NAME]
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600
    assert load_own_keys(folder).retired == ()


def test_several_keys(tmp_path: Path) -> None:
    first, second = new_signing_key(), new_signing_key()
    (tmp_path / FILE_NAME).write_text(f"{first.format()}\n\n{second.format()}\n")
    keys = load_own_keys(tmp_path)
    assert keys.active == (first, second)
    assert keys.signing == load_signing_key(tmp_path) == first


def test_changing_the_key_retires_those_before(tmp_path: Path) -> None:
    first = load_signing_key(tmp_path)
    second = rotate_signing_key(tmp_path, now_ms=NOW)
    third = rotate_signing_key(tmp_path, now_ms=NOW + 5)
    keys = load_own_keys(tmp_path)
    assert keys.active == (third,)
    assert [(each.key.encode(), each.expired_ts) for each in keys.retired] == [
        (first.verify_key.encode(), NOW + RESTART_MS),
        (second.verify_key.encode(), NOW + 5 + RESTART_MS),
    ]
    secret = first.format().split()[2]
    assert secret not in (tmp_path / OLD_FILE_NAME).read_text()
    assert {path.name for path in tmp_path.iterdir()} == {FILE_NAME, OLD_FILE_NAME}


def test_a_key_in_use_is_not_retired(tmp_path: Path) -> None:
    first = load_signing_key(tmp_path)
    rotate_signing_key(tmp_path, now_ms=NOW)
    (tmp_path / FILE_NAME).write_text(first.format())
    assert load_own_keys(tmp_path).retired == ()


@pytest.mark.parametrize("text", ["", "\n", "ed25519 a", "rsa a AAAA", "ed25519 a AAAA\n", "x" * 1000])
def test_what_is_no_key_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(InvalidParam):
        load_own_keys(tmp_path)


def test_two_keys_of_one_name_are_told(tmp_path: Path) -> None:
    line = new_signing_key().format()
    other = SigningKey.from_seed(line.split()[1], bytes(32)).format()
    (tmp_path / FILE_NAME).write_text(f"{line}\n{other}\n")
    with pytest.raises(InvalidParam):
        load_own_keys(tmp_path)


@pytest.mark.parametrize(
    "line", ["ed25519 a AAAA 5", "ed25519 a", "rsa a {key} 5", "ed25519 a {key} soon", "ed25519 a {key}"]
)
def test_what_is_no_retired_key_is_told(tmp_path: Path, line: str) -> None:
    key = load_signing_key(tmp_path).verify_key.encode()
    (tmp_path / OLD_FILE_NAME).write_text(line.format(key=key))
    with pytest.raises(InvalidParam):
        load_own_keys(tmp_path)


class TestCommands:
    """`homeserver signing-key`."""

    @pytest.fixture
    def config_file(self, tmp_path: Path) -> Path:
        file = tmp_path / "config.yaml"
        file.write_text(json.dumps({"server_name": "example.org", "data_dir": str(tmp_path / "data")}))
        return file

    @staticmethod
    def invoke(*words: str | Path) -> Result:
        return CliRunner().invoke(main, ["signing-key", *map(str, words)], catch_exceptions=False)

    def test_generate(self) -> None:
        first, second = (self.invoke("generate").output for _ in range(2))
        assert SigningKey.parse(first) != SigningKey.parse(second)

    def test_rotate_and_list(self, config_file: Path, tmp_path: Path) -> None:
        before = load_signing_key(tmp_path / "data")
        assert self.invoke("list", "-c", config_file).output == f"{before.key_id} {before.verify_key.encode()} signs\n"
        rotated = self.invoke("rotate", "--yes", "-c", config_file)
        assert rotated.exit_code == 0
        after = load_signing_key(tmp_path / "data")
        assert after.key_id in rotated.output
        signs, retired = self.invoke("list", "-c", config_file).output.splitlines()
        assert signs == f"{after.key_id} {after.verify_key.encode()} signs"
        assert retired.startswith(f"{before.key_id} {before.verify_key.encode()} retired at ")

    def test_a_broken_file_is_told(self, config_file: Path, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / FILE_NAME).write_text("nonsense")
        result = self.invoke("list", "-c", config_file)
        assert result.exit_code == 1
        assert "ed25519" in result.output
