"""`homeserver signing-key`: the keys with which the server signs."""

import os
from pathlib import Path

import click

from homeserver.cli.options import config_option, told
from homeserver.config.load import load_config
from homeserver.runtime.clock import SystemClock
from homeserver.runtime.signing_key import (
    RESTART_MS,
    describe_keys,
    load_own_keys,
    new_signing_key,
    rotate_signing_key,
)


@click.group("signing-key")
def signing_key() -> None:
    """Look after the keys with which the server signs its events and requests."""


@signing_key.command("generate")
def signing_key_generate() -> None:
    """Write a new key to standard output, as a line for `signing.key`. It is secret."""
    click.echo(new_signing_key().format())


@signing_key.command("list")
@config_option
def signing_key_list(config_file: Path) -> None:
    """List the server's keys, one per line, with what they are for."""
    with told():
        for line in describe_keys(load_own_keys(load_config(config_file, os.environ).data_dir)):
            click.echo(line)


@signing_key.command("rotate")
@config_option
@click.confirmation_option(prompt="The server must be restarted right afterwards. Go on?")
def signing_key_rotate(config_file: Path) -> None:
    """Make a new key and retire those in use, which stay published for what they have signed."""
    with told():
        key = rotate_signing_key(load_config(config_file, os.environ).data_dir, now_ms=SystemClock().now_ms())
    click.echo(f"The server signs with {key.key_id} once it is restarted; do so within {RESTART_MS // 60_000} minutes")
