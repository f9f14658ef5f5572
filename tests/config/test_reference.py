"""The example configuration and the reference, both made from the schema."""

import dataclasses
import re
from pathlib import Path

import pytest

from homeserver.config.load import parse_config
from homeserver.config.reference import example_yaml, reference_markdown
from homeserver.config.schema import Config, RateLimitsConfig
from homeserver.core.ids import ServerName
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.web.endpoint import RateLimit

TOP = Path(__file__).parents[2]


def read(text: str) -> Config:
    return parse_config(text, folder=Path(), environment={})


def test_the_example_is_the_defaults() -> None:
    config = read(example_yaml(server_name="example.org", data_dir="./data"))
    assert config == Config(server_name=ServerName.parse("example.org"))


def test_every_line_of_the_example_may_be_uncommented() -> None:
    text = example_yaml(server_name="example.org", data_dir="data")
    config = read("\n\n".join(_uncommented(paragraph) for paragraph in text.split("\n\n")))
    assert config == Config(server_name=ServerName.parse("example.org"))


def _uncommented(paragraph: str) -> str:
    """A paragraph's setting without its `# `: the last line that has a key, and the list below it."""
    lines = paragraph.splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r" *# [a-z_]+:", line)]
    start = keys[-1] if keys and lines[-1].strip().startswith("#") else len(lines)
    return "\n".join(lines[:start] + [line.replace("# ", "", 1) for line in lines[start:]])


def test_the_development_configuration_is_open() -> None:
    config = read(example_yaml(server_name="localhost", data_dir="data", development=True))
    assert config.registration.enabled
    assert not config.registration.require_verification
    assert not config.rate_limits.enabled
    assert config.base_url == "http://localhost:8008/"


def test_the_committed_documents_are_current() -> None:
    assert (TOP / "config.yaml").read_text() == example_yaml(server_name="example.org", data_dir="./data")
    assert (TOP / "docs" / "configuration.md").read_text() == reference_markdown()


@pytest.mark.parametrize("section", ["rate_limits", "registration", "database", "federation"])
def test_the_reference_names_every_key(section: str) -> None:
    kind = type(getattr(Config(server_name=ServerName.parse("a.b")), section))
    for field in dataclasses.fields(kind):
        assert f"**`{field.name}`**" in reference_markdown()


def test_there_is_a_rate_for_each_class_of_limits() -> None:
    rates = {field.name for field in dataclasses.fields(RateLimitsConfig)} - {"enabled"}
    assert rates == {kind.value for kind in RateLimit}


def test_every_room_version_can_be_the_default() -> None:
    for version in ROOM_VERSIONS:
        read(f"server_name: a.b\nrooms: {{default_room_version: '{version}'}}")
