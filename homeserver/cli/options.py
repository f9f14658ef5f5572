"""What the commands share: their options, how they reach the database, and how a failure is told."""

import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import uvloop

from homeserver.config.environment import CONFIG_VARIABLE
from homeserver.config.load import ConfigError, load_config
from homeserver.config.schema import Config
from homeserver.core.errors import MatrixError
from homeserver.runtime.listeners import ListenError
from homeserver.runtime.start import ServerError, database_of
from storage.embedded import EmbeddedPostgresError
from storage.errors import DatabaseError

T = TypeVar("T")


@contextmanager
def told() -> Iterator[None]:
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

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, times in milliseconds.")


@contextmanager
def config_with_database(config_file: Path) -> Iterator[Config]:
    """The configuration, with a database that runs: an embedded one may be that of a running server."""
    with told():
        config = load_config(config_file, os.environ)
        config.data_dir.mkdir(parents=True, exist_ok=True)
        with database_of(config, join=True) as running:
            yield running


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """What the work returns, in an event loop of its own."""
    return uvloop.run(work)
