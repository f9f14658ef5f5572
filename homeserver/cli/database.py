"""`homeserver db`: the database."""

import json
import sys
from pathlib import Path

import click

from homeserver.cli.options import config_option, config_with_database, run_to_end
from homeserver.runtime.database_size import database_size
from storage.migrate import migrate, rebase, status
from storage.schema_reference import schema_markdown


@click.group()
def db() -> None:
    """Look after the database."""


@db.command("status")
@config_option
def db_status(config_file: Path) -> None:
    """Tell how the schema stands. Exit code 1 if something is left to do."""
    with config_with_database(config_file) as config:
        found = run_to_end(status(config.database.url))
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
    with config_with_database(config_file) as config:
        done = run_to_end(migrate(config.database.url, to=to))
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
    with config_with_database(config_file) as config:
        offset = run_to_end(rebase(config.database.url))
    click.echo(f"Rebased by {offset}")


@db.command("size")
@config_option
@click.option("--rooms", default=20, show_default=True, type=click.IntRange(0, 10_000), help="How many rooms.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, sizes in bytes.")
def db_size(config_file: Path, rooms: int, as_json: bool) -> None:
    """Tell how much space the database takes: each table, and the largest rooms, which are estimated from a sample."""
    with config_with_database(config_file) as config:
        report = run_to_end(database_size(config, rooms_max=rooms))
    click.echo(json.dumps(report.json(), indent=2) if as_json else "\n".join(report.lines()))


@db.command("schema-reference")
def db_schema_reference() -> None:
    """Write what each table is for, and what bounds it, to standard output, in Markdown."""
    click.echo(schema_markdown(), nl=False)
