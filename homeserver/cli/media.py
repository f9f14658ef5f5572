"""`homeserver media`: files."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import click

from homeserver.cli.options import config_option, config_with_database, json_option, run_to_end
from homeserver.config.schema import Config
from homeserver.core.errors import InvalidParam
from homeserver.core.ids import MxcUri, UserId
from homeserver.runtime.clock import SystemClock
from homeserver.runtime.media_cli import (
    Unused,
    delete_media,
    delete_unused,
    list_media,
    media_line,
    move,
    purge_remote,
    quarantine,
)
from homeserver.runtime.media_store import Storage
from homeserver.services.media.moving import BytesDiffer, Moved
from storage.media.base import StoreUnavailable


@click.group()
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

    with config_with_database(config_file) as config:
        run_to_end(show(config))


@media.command("delete")
@config_option
@click.argument("uri", callback=_uri)
def media_delete(config_file: Path, uri: MxcUri) -> None:
    """Remove the file URI (mxc://…), or the copy of it. Its bytes go within minutes if nothing else has the same."""
    with config_with_database(config_file) as config:
        run_to_end(delete_media(config, SystemClock(), uri))
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
    with config_with_database(config_file) as config:
        run_to_end(quarantine(config, SystemClock(), uri, release=release))
    click.echo("Released" if release else "Quarantined")


@media.command("move")
@config_option
@click.option("--to", "storage", type=click.Choice(["files", "s3"]), required=True, help="Where to.")
def media_move(config_file: Path, storage: Storage) -> None:
    """Bring all files from the folder into the bucket of `media.s3`, or back, while the server runs or not.

    Run it, set `media.storage`, restart the server, and run it again: only then are they removed from where they were.
    """

    async def bring(config: Config) -> Moved:
        moved = Moved()
        async for moved in move(config, SystemClock(), storage=storage):
            click.echo(f"\r{moved.seen} files, {moved.brought} brought", nl=False, err=True)
        return moved

    with config_with_database(config_file) as config:
        is_last = config.media.storage == storage
        try:
            moved = run_to_end(bring(config))
        except (BytesDiffer, StoreUnavailable) as error:
            raise click.ClickException(f"{error}. What was brought stays; run it again") from error
    click.echo(err=True)
    click.echo(f"{moved.brought} of {moved.seen} files brought, {moved.missing} are missing in both")
    if not is_last:
        click.echo(f"Now set media.storage to {storage}, restart the server, and run this again", err=True)


def _remove_with_progress(config_file: Path, work: Callable[[Config], AsyncIterator[int]]) -> None:
    """Removes media, telling how many so far on standard error and how many in all on standard output."""

    async def remove(config: Config) -> int:
        total = 0
        async for total in work(config):
            click.echo(f"\r{total} removed", nl=False, err=True)
        return total

    with config_with_database(config_file) as config:
        total = run_to_end(remove(config))
    click.echo(err=True)
    click.echo(f"{total} files removed")
