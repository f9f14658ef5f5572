"""`homeserver user`: accounts."""

from pathlib import Path
from typing import Final

import click

from homeserver.cli.options import config_option, config_with_database, run_to_end
from homeserver.config.schema import Config
from homeserver.core.ids import UserId
from homeserver.runtime.administration import administration
from homeserver.runtime.clock import SystemClock
from homeserver.services.accounts.administration import NewAccount
from storage.users import UserRow

PAGE: Final = 500
"""How many accounts are read at once."""


@click.group()
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

    with config_with_database(config_file) as config:
        click.echo(run_to_end(create(config)))


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

    with config_with_database(config_file) as config:
        run_to_end(show(config))


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

    with config_with_database(config_file) as config:
        run_to_end(reset(config))
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

    with config_with_database(config_file) as config:
        run_to_end(deactivate(config))
    click.echo("Deactivated")


def _ask_password() -> str:
    answer: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return answer
