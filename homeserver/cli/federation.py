"""`homeserver federation`: how this server gets on with others."""

import json
import sys
from pathlib import Path

import click

from homeserver.cli.options import config_option, config_with_database, json_option, run_to_end
from homeserver.config.schema import Config
from homeserver.core.errors import InvalidParam
from homeserver.core.ids import ServerName
from homeserver.runtime.clock import SystemClock
from homeserver.runtime.federation_cli import (
    federation_doctor,
    federation_retry,
    federation_status,
    finding_json,
    finding_line,
)


@click.group()
def federation() -> None:
    """See how this server gets on with others."""


def _server_name(_: click.Context, __: click.Parameter, value: str | None) -> ServerName | None:
    """The server that an argument names, if there is one."""
    try:
        return None if value is None else ServerName.parse(value)
    except InvalidParam as error:
        raise click.BadParameter(error.message) from error


@federation.command("status")
@config_option
@click.argument("destination", callback=_server_name, required=False)
@json_option
def federation_status_command(config_file: Path, destination: ServerName | None, as_json: bool) -> None:
    """List the servers that something waits for or that do not answer; or tell of DESTINATION alone."""
    with config_with_database(config_file) as config:
        report = run_to_end(federation_status(config, SystemClock(), destination))
    click.echo(json.dumps(report.json(), indent=2) if as_json else "\n".join(report.lines()))


@federation.command("retry")
@config_option
@click.argument("destination", callback=_server_name, required=False)
@click.option("--all", "all_servers", is_flag=True, help="Try all servers that do not answer.")
def federation_retry_command(config_file: Path, destination: ServerName | None, all_servers: bool) -> None:
    """Try DESTINATION again now, though it has not answered a while ago."""
    if (destination is None) is not all_servers:
        raise click.UsageError("Name a server, or say --all")
    with config_with_database(config_file) as config:
        retried = run_to_end(federation_retry(config, SystemClock(), destination))
    for server in retried:
        click.echo(f"Will be tried: {server}")
    if not retried:
        click.echo("Nothing to do: it is not being left alone" if destination else "Nothing to do")


@federation.command("doctor")
@config_option
@click.argument("name", callback=_server_name)
@json_option
def federation_doctor_command(config_file: Path, name: ServerName, as_json: bool) -> None:
    """Find out what is wrong between this server and the server NAME, which may be this one.

    Exit code 1 if there is a problem.
    """

    async def examine(config: Config) -> bool:
        has_problem = False
        async for finding in federation_doctor(config, SystemClock(), name):
            click.echo(json.dumps(finding_json(finding)) if as_json else finding_line(finding))
            has_problem |= finding.is_problem
        return has_problem

    with config_with_database(config_file) as config:
        has_problem = run_to_end(examine(config))
    if has_problem:
        sys.exit(1)
