"""The command `homeserver`: what operators type."""

import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import uvloop

from homeserver.config.environment import CONFIG_VARIABLE, unknown_variables
from homeserver.config.load import ConfigError, load_config
from homeserver.config.reference import example_yaml, reference_markdown
from homeserver.config.schema import Config
from homeserver.core.errors import InvalidParam, MatrixError
from homeserver.core.ids import MxcUri, ServerName, UserId
from homeserver.core.version import NAME, VERSION
from homeserver.runtime.administration import administration
from homeserver.runtime.clock import SystemClock
from homeserver.runtime.federation_cli import (
    federation_doctor,
    federation_retry,
    federation_status,
    finding_json,
    finding_line,
)
from homeserver.runtime.listeners import ListenError
from homeserver.runtime.media_cli import (
    Unused,
    delete_media,
    delete_unused,
    list_media,
    media_line,
    purge_remote,
    quarantine,
)
from homeserver.runtime.signing_key import (
    RESTART_MS,
    describe_keys,
    load_own_keys,
    new_signing_key,
    rotate_signing_key,
)
from homeserver.runtime.start import ServerError, database_of, run_server, run_worker
from homeserver.services.accounts.administration import NewAccount
from storage.embedded import EmbeddedPostgresError
from storage.errors import DatabaseError
from storage.migrate import migrate, rebase, status
from storage.schema_reference import schema_markdown
from storage.users import UserRow

T = TypeVar("T")

PAGE: Final = 500
"""How many accounts are read at once."""


@contextmanager
def _told() -> Iterator[None]:
    """Tells an expected failure on standard error, in a line or a few, with exit code 1."""
    try:
        yield
    except ConfigError as error:
        raise click.ClickException("The configuration cannot be used:\n" + "\n".join(error.mistakes)) from error
    except MatrixError as error:
        raise click.ClickException(error.message) from error
    except (ServerError, ListenError, EmbeddedPostgresError, DatabaseError) as error:
        raise click.ClickException(str(error) or type(error).__name__) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error


config_option = click.option(
    "-c",
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    default="config.yaml",
    envvar=CONFIG_VARIABLE,
    show_default=True,
    help="The configuration file.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name=NAME)
def main() -> None:
    """Heliograph, a Matrix homeserver."""


@main.command()
@config_option
def run(config_file: Path) -> None:
    """Run the server in the foreground.

    It is ready when GET /health answers 200. SIGTERM lets requests finish, then stops it.
    """
    with _told():
        run_server(config_file, os.environ)


@main.command("run-worker", hidden=True)
@config_option
@click.option("--number", type=int, required=True)
@click.option("--sockets", required=True)
@click.option("--lifeline", type=int, required=True)
def run_worker_command(config_file: Path, number: int, sockets: str, lifeline: int) -> None:
    """Run one of several workers; the server does this itself."""
    with _told():
        run_worker(config_file, os.environ, number=number, sockets=sockets, lifeline=lifeline)


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
    with _told():
        load_config(config_file, os.environ)
    click.echo(f"{config_file}: no mistakes")


@main.command("config-reference")
def config_reference() -> None:
    """Write the documentation of every setting to standard output, in Markdown."""
    click.echo(reference_markdown(), nl=False)


@main.group()
def user() -> None:
    """Make and look after accounts."""


password_option = click.option("--password", help="The password; asked for if it is not given.")


@user.command("create")
@config_option
@click.argument("name")
@password_option
@click.option("--admin", is_flag=True, help="Make an administrator.")
@click.option("--displayname", help="The name that others see.")
def user_create(config_file: Path, name: str, password: str | None, admin: bool, displayname: str | None) -> None:
    """Make the account NAME: a user id, or the part of it before the colon."""
    account = NewAccount(username=name, password=password or _ask_password(), displayname=displayname, is_admin=admin)

    async def create(config: Config) -> UserId:
        async with administration(config, SystemClock()) as accounts:
            return await accounts.create_user(account)

    with _config_with_database(config_file) as config:
        click.echo(_run(create(config)))


@user.command("list")
@config_option
@click.option("--deactivated", is_flag=True, help="Those that have been deactivated too.")
def user_list(config_file: Path, deactivated: bool) -> None:
    """List the accounts, one per line, with what is special about them."""

    async def show(config: Config) -> None:
        after = ""
        async with administration(config, SystemClock()) as accounts:
            while rows := await accounts.list_users(after=after, limit=PAGE, with_deactivated=deactivated):
                for row in rows:
                    click.echo(" ".join([row.user_id, *_marks(row)]))
                after = rows[-1].user_id

    with _config_with_database(config_file) as config:
        _run(show(config))


def _marks(row: UserRow) -> list[str]:
    marks = {"admin": row.is_admin, "locked": row.locked, "suspended": row.suspended, "deactivated": row.deactivated}
    return [mark for mark, holds in marks.items() if holds]


@user.command("reset-password")
@config_option
@click.argument("name")
@password_option
@click.option("--keep-sessions", is_flag=True, help="Leave the account's devices logged in.")
def user_reset_password(config_file: Path, name: str, password: str | None, keep_sessions: bool) -> None:
    """Give the account NAME another password, and end its sessions."""
    new_password = password or _ask_password()

    async def reset(config: Config) -> None:
        async with administration(config, SystemClock()) as accounts:
            await accounts.reset_password(accounts.user_id_named(name), new_password, logout_devices=not keep_sessions)

    with _config_with_database(config_file) as config:
        _run(reset(config))
    click.echo("Password changed")


@user.command("deactivate")
@config_option
@click.argument("name")
@click.option("--erase", is_flag=True, help="Hide its messages from those who join its rooms later.")
@click.confirmation_option(prompt="Nobody can ever use this account again. Go on?")
def user_deactivate(config_file: Path, name: str, erase: bool) -> None:
    """End the account NAME for good; its name stays taken."""

    async def deactivate(config: Config) -> None:
        async with administration(config, SystemClock()) as accounts:
            await accounts.deactivate(accounts.user_id_named(name), erase=erase)

    with _config_with_database(config_file) as config:
        _run(deactivate(config))
    click.echo("Deactivated")


def _ask_password() -> str:
    answer: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return answer


@main.group("signing-key")
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
    with _told():
        for line in describe_keys(load_own_keys(load_config(config_file, os.environ).data_dir)):
            click.echo(line)


@signing_key.command("rotate")
@config_option
@click.confirmation_option(prompt="The server must be restarted right afterwards. Go on?")
def signing_key_rotate(config_file: Path) -> None:
    """Make a new key and retire those in use, which stay published for what they have signed."""
    with _told():
        key = rotate_signing_key(load_config(config_file, os.environ).data_dir, now_ms=SystemClock().now_ms())
    click.echo(f"The server signs with {key.key_id} once it is restarted; do so within {RESTART_MS // 60_000} minutes")


@main.group()
def db() -> None:
    """Look after the database."""


@db.command("status")
@config_option
def db_status(config_file: Path) -> None:
    """Tell how the schema stands. Exit code 1 if something is left to do."""
    with _config_with_database(config_file) as config:
        found = _run(status(config.database.url))
    click.echo(f"Version: {found.version}")
    for migration in found.pending:
        click.echo(f"To apply: {migration.version:04} {migration.name}")
    for number in found.unknown:
        click.echo(f"Of a newer program: {number:04}")
    if found.rebase_needed:
        click.echo("Restored from a dump: run `homeserver db rebase`")
    if found.pending or found.unknown or found.rebase_needed:
        sys.exit(1)


@db.command("migrate")
@config_option
@click.option("--to", type=click.IntRange(min=0), help="The version to go to, forwards or back. Default: the newest.")
def db_migrate(config_file: Path, to: int | None) -> None:
    """Bring the schema to a version. The server does it by itself when it starts."""
    with _config_with_database(config_file) as config:
        done = _run(migrate(config.database.url, to=to))
    for migration in done:
        verb = "Took back" if to is not None and migration.version > to else "Applied"
        click.echo(f"{verb} {migration.version:04} {migration.name}")
    if not done:
        click.echo("Nothing to do")


@db.command("rebase")
@config_option
def db_rebase(config_file: Path) -> None:
    """Continue all streams above what clients have seen, after a restore from a dump.

    No server may run meanwhile.
    """
    with _config_with_database(config_file) as config:
        offset = _run(rebase(config.database.url))
    click.echo(f"Rebased by {offset}")


@db.command("schema-reference")
def db_schema_reference() -> None:
    """Write what each table is for, and what bounds it, to standard output, in Markdown."""
    click.echo(schema_markdown(), nl=False)


@main.group()
def federation() -> None:
    """See how this server gets on with others."""


def _server_name(_: click.Context, __: click.Parameter, value: str | None) -> ServerName | None:
    """The server that an argument names, if there is one."""
    try:
        return None if value is None else ServerName.parse(value)
    except InvalidParam as error:
        raise click.BadParameter(error.message) from error


json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, times in milliseconds.")


@federation.command("status")
@config_option
@click.argument("destination", callback=_server_name, required=False)
@json_option
def federation_status_command(config_file: Path, destination: ServerName | None, as_json: bool) -> None:
    """List the servers that something waits for or that do not answer; or tell of DESTINATION alone."""
    with _config_with_database(config_file) as config:
        report = _run(federation_status(config, SystemClock(), destination))
    click.echo(json.dumps(report.json(), indent=2) if as_json else "\n".join(report.lines()))


@federation.command("retry")
@config_option
@click.argument("destination", callback=_server_name, required=False)
@click.option("--all", "all_servers", is_flag=True, help="Try all servers that do not answer.")
def federation_retry_command(config_file: Path, destination: ServerName | None, all_servers: bool) -> None:
    """Try DESTINATION again now, though it has not answered a while ago."""
    if (destination is None) is not all_servers:
        raise click.UsageError("Name a server, or say --all")
    with _config_with_database(config_file) as config:
        retried = _run(federation_retry(config, SystemClock(), destination))
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

    with _config_with_database(config_file) as config:
        has_problem = _run(examine(config))
    if has_problem:
        sys.exit(1)


@main.group()
def media() -> None:
    """Look after files: what users have uploaded, and copies of other servers' files."""


def _uri(_: click.Context, __: click.Parameter, value: str) -> MxcUri:
    """The medium that an argument names."""
    try:
        return MxcUri.parse(value)
    except InvalidParam as error:
        raise click.BadParameter(error.message) from error


def _user(_: click.Context, __: click.Parameter, value: str | None) -> UserId | None:
    """The user that an option names, if there is one."""
    try:
        return None if value is None else UserId.parse(value)
    except InvalidParam as error:
        raise click.BadParameter(error.message) from error


days_option = click.option(
    "--days", type=click.IntRange(min=0), required=True, help="Those that nobody has asked for in so many days."
)


@media.command("list")
@config_option
@click.option("--user", "user_id", callback=_user, help="Those of one user.")
@click.option("--remote", is_flag=True, help="The copies of other servers' files.")
@json_option
def media_list(config_file: Path, user_id: UserId | None, remote: bool, as_json: bool) -> None:
    """List files, one per line: URI, bytes, type, user, and what is special about them."""

    async def show(config: Config) -> None:
        async for one in list_media(config, SystemClock(), user_id=user_id, remote=remote):
            click.echo(json.dumps(one) if as_json else media_line(one))

    with _config_with_database(config_file) as config:
        _run(show(config))


@media.command("delete")
@config_option
@click.argument("uri", callback=_uri)
def media_delete(config_file: Path, uri: MxcUri) -> None:
    """Remove the file URI (mxc://…), or the copy of it. Its bytes go within minutes if nothing else has the same."""
    with _config_with_database(config_file) as config:
        _run(delete_media(config, SystemClock(), uri))
    click.echo("Deleted")


@media.command("delete-unused")
@config_option
@days_option
@click.option("--larger-than", "larger_than_bytes", default=0, help="Only those of more bytes.")
@click.option("--with-profiles", is_flag=True, help="Pictures of users too.")
def media_delete_unused(config_file: Path, days: int, larger_than_bytes: int, with_profiles: bool) -> None:
    """Remove uploads that nobody asks for. They are lost for good."""
    wish = Unused(days=days, larger_than_bytes=larger_than_bytes, keep_profiles=not with_profiles)
    _remove_with_progress(config_file, lambda config: delete_unused(config, SystemClock(), wish))


@media.command("purge-remote")
@config_option
@days_option
def media_purge_remote(config_file: Path, days: int) -> None:
    """Remove copies of other servers' files that nobody asks for. They are fetched again when somebody does."""
    _remove_with_progress(config_file, lambda config: purge_remote(config, SystemClock(), days=days))


@media.command("quarantine")
@config_option
@click.argument("uri", callback=_uri)
@click.option("--release", is_flag=True, help="Give it out again.")
def media_quarantine(config_file: Path, uri: MxcUri, release: bool) -> None:
    """Give the file URI (mxc://…) to nobody any more, nor any other with the same bytes."""
    with _config_with_database(config_file) as config:
        _run(quarantine(config, SystemClock(), uri, release=release))
    click.echo("Released" if release else "Quarantined")


def _remove_with_progress(config_file: Path, work: Callable[[Config], AsyncIterator[int]]) -> None:
    """Removes media, telling how many so far on standard error and how many in all on standard output."""

    async def remove(config: Config) -> int:
        total = 0
        async for total in work(config):
            click.echo(f"\r{total} removed", nl=False, err=True)
        return total

    with _config_with_database(config_file) as config:
        total = _run(remove(config))
    click.echo(err=True)
    click.echo(f"{total} files removed")


@contextmanager
def _config_with_database(config_file: Path) -> Iterator[Config]:
    """The configuration, with a database that runs: an embedded one may be that of a running server."""
    with _told():
        config = load_config(config_file, os.environ)
        config.data_dir.mkdir(parents=True, exist_ok=True)
        with database_of(config, join=True) as running:
            yield running


def _run(work: Coroutine[Any, Any, T]) -> T:
    return uvloop.run(work)
