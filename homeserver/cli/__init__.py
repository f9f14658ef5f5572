"""The command `homeserver`: what operators type. Groups of commands have files of their own."""

import os
from pathlib import Path

import click

from homeserver.cli.database import db
from homeserver.cli.federation import federation
from homeserver.cli.media import media
from homeserver.cli.options import config_option, told
from homeserver.cli.signing_keys import signing_key
from homeserver.cli.users import user
from homeserver.config.environment import unknown_variables
from homeserver.config.load import load_config
from homeserver.config.reference import example_yaml, reference_markdown
from homeserver.core.errors import InvalidParam
from homeserver.core.ids import ServerName
from homeserver.core.version import NAME, VERSION
from homeserver.runtime.memory import give_memory_back
from homeserver.runtime.start import run_server, run_worker


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name=NAME)
def main() -> None:
    """Heliograph, a Matrix homeserver."""


@main.command()
@config_option
@click.option("--sockets", hidden=True)
def run(config_file: Path, sockets: str | None) -> None:
    """Run the server in the foreground.

    It is ready when GET /health answers 200. SIGTERM lets requests finish, then stops it; SIGHUP has it take up its
    configuration anew.
    """
    give_memory_back()
    with told():
        run_server(config_file, os.environ, sockets=sockets)


@main.command("run-worker", hidden=True)
@config_option
@click.option("--number", type=int, required=True)
@click.option("--sockets", required=True)
@click.option("--lifeline", type=int, required=True)
@click.option("--reports", type=int, required=True)
def run_worker_command(config_file: Path, number: int, sockets: str, lifeline: int, reports: int) -> None:
    """Run one of several workers; the server does this itself."""
    give_memory_back()
    with told():
        run_worker(config_file, os.environ, number=number, sockets=sockets, lifeline=lifeline, reports=reports)


@main.command("generate-config")
@click.option("--server-name", required=True, help="The part after the colon of user names; it can never be changed.")
@click.option("--data-dir", default="./data", show_default=True, help="The folder for the server's data.")
@click.option("--development", is_flag=True, help="For trying out on this machine: open registration, no rate limits.")
def generate_config(server_name: str, data_dir: str, development: bool) -> None:
    """Write a commented configuration to standard output."""
    try:
        ServerName.parse(server_name)
    except InvalidParam as error:
        raise click.BadParameter(error.message, param_hint="--server-name") from error
    click.echo(example_yaml(server_name=server_name, data_dir=data_dir, development=development), nl=False)


@main.command("check-config")
@config_option
def check_config(config_file: Path) -> None:
    """Tell every mistake in the configuration."""
    for name in unknown_variables(os.environ):
        click.echo(f"Warning: the environment variable {name} is no setting", err=True)
    with told():
        load_config(config_file, os.environ)
    click.echo(f"{config_file}: no mistakes")


@main.command("config-reference")
def config_reference() -> None:
    """Write the documentation of every setting to standard output, in Markdown."""
    click.echo(reference_markdown(), nl=False)


for group in (user, signing_key, db, federation, media):
    main.add_command(group)
