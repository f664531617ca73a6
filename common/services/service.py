"""Starts, shares and stops an embedded service, which all terminals of one checkout use together.

A service is a process in its own session, so Ctrl-C in the terminal that started it does not stop it for the other
terminals. Its users and the service coordinate by locks on three files in DATA_DIR. All locks are flock(2), which the
kernel releases when the process that holds them dies:

    NAME.lock   locked exclusively while the service is started or stopped
    NAME.users  locked shared by each user. The last user to leave stops the service; a service that has no
                users any more (all were killed) stops itself
    NAME.json   locked exclusively by the running service; contains its pid and ports

NAME.pid contains only the pid, for `kill $(cat .data/valkey.pid)`.
"""

import asyncio
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Self, cast

from common.processes.process import LIFELINE, stop_requested
from common.settings import Settings, exit_with_usage_error

START_SECONDS = 20.0
# Seconds: on an idle machine an Erlang node takes 5, creating a Postgres 3, and NATS nodes elect a leader in up to 9.
SLOW_STARTS = {"rabbitmq": 90.0, "postgres": 60.0, "cluster": 60.0, "nats_cluster": 90.0}
STOP_SECONDS = 10.0
ANNOUNCEMENT_BYTES = 512
CHECK_SECONDS = 1.0  # how often a service checks for users, and a user checks its service

PORTS = {
    "inbox": ("INBOX_SMTP_PORT", "INBOX_PORT"),
    "valkey": ("VALKEY_PORT",),
    "rabbitmq": ("RABBITMQ_PORT",),
    "nats": ("NATS_PORT",),
    "postgres": ("POSTGRES_PORT",),
    "sentinel": ("SENTINEL_1_PORT", "SENTINEL_2_PORT", "SENTINEL_3_PORT"),
    "cluster": ("CLUSTER_1_PORT", "CLUSTER_2_PORT", "CLUSTER_3_PORT"),
    "nats_cluster": ("NATS_1_PORT", "NATS_2_PORT", "NATS_3_PORT"),
}

Facts = dict[str, int]


class CannotStart(Exception):
    """The service did not start; the message is one line for the user."""


class StartStopped(CannotStart):
    """The user has stopped the program before the service was ready."""


class Service:
    """One user of a service. `ports` has the service's ports by the names of their settings, `pid` its process id."""

    def __init__(self, settings: Settings, name: str, stopped: Callable[[], bool] = lambda: False) -> None:
        """`stopped` is called during the start, in the same thread, and returns True to abandon it."""
        self.name = name
        self.pid = 0
        self._dir = settings.data_dir
        self._stopped = stopped
        wanted = {variable: getattr(settings, variable.lower()) for variable in PORTS[name]}
        self.ports: dict[str, int] = {variable: port for variable, port in wanted.items() if port is not None}
        self._users: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None  # set if this user started the service

    def __enter__(self) -> Self:
        """Find the running service or start it; return when it can be used.

        Ends the program with one line and exit status 2 if the service does not start. Raises StartStopped.
        """
        try:
            make_private(self._dir)
            for name in (f"{self.name}.users", f"{self.name}.lock", f"{self.name}.log"):
                (self._dir / name).touch()
        except OSError as error:
            exit_with_usage_error(f"DATA_DIR: cannot write to {self._dir}: {error.strerror}")
        self._users = open(self._dir / f"{self.name}.users", "w")
        fcntl.flock(self._users, fcntl.LOCK_SH)
        try:
            self.ensure()
        except StartStopped:
            self._users.close()
            raise
        except CannotStart as error:
            self._users.close()
            exit_with_usage_error(str(error))
        except BaseException:
            self._users.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._users is not None
        with self._users, exclusive(self._dir / f"{self.name}.lock"):
            if _try_exclusive(self._users) and (facts := running(self._dir, self.name)):
                self._stop(facts["pid"])

    def ensure(self) -> bool:
        """Start the service if it is not running, on the ports it had before. Returns True if it had to be started.

        Raises CannotStart.
        """
        if self._process is not None:
            self._process.poll()  # so that a dead child does not stay a zombie
        if (found := running(self._dir, self.name)) and _exists(found["pid"]):
            self._remember(found)
            return False
        with exclusive(self._dir / f"{self.name}.lock", self._stopped):
            found = running(self._dir, self.name)  # another user may have started it meanwhile
            if found and not _exists(found["pid"]):  # its servers run, but it cannot start them again
                self._stop(found["pid"])
                found = None
            self._remember(found or self._start())
        return not found

    def _remember(self, facts: Facts) -> None:
        self.ports = {variable: facts[variable.lower()] for variable in PORTS[self.name]}
        self.pid = facts["pid"]

    def _start(self) -> Facts:
        environment = os.environ | {variable: str(port) for variable, port in self.ports.items()}
        environment.pop(LIFELINE, None)
        if self._process is not None:
            self._process.wait()  # it has released the lock on its announcement, so it is about to end
        output = self._dir / f"{self.name}.log"
        with open(output, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"common.services.{self.name}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment | {"DATA_DIR": str(self._dir)},
                start_new_session=True,
            )
        deadline = time.monotonic() + SLOW_STARTS.get(self.name, START_SECONDS)
        while time.monotonic() < deadline and self._process.poll() is None and not self._stopped():
            if facts := running(self._dir, self.name):
                return facts
            time.sleep(0.01)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the group: also the processes that it has started
        self._process.wait()
        if self._stopped():
            raise StartStopped
        lines = output.read_text(errors="replace").strip().splitlines()
        raise CannotStart(lines[-1] if lines else f"the embedded {self.name} did not start")

    def _stop(self, pid: int) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        if self._process is not None:
            self._process.poll()  # until its status is read, a killed child still accepts signals
        _signal(pid, signal.SIGTERM)
        while running(self._dir, self.name):
            if time.monotonic() > deadline:
                _signal(pid, signal.SIGKILL)
            time.sleep(0.005)
        (self._dir / f"{self.name}.pid").unlink(missing_ok=True)
        if self._process is not None:
            self._process.wait()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _signal(pid: int, number: int) -> None:
    """Send a signal to the service. If its process was killed, send it to the processes that it started."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)  # the service leads a process group


def make_private(folder: Path) -> None:
    """Create the folder, or restrict it so that only its owner can read the services' data. Raises OSError.

    A shared folder (with the sticky bit, such as /tmp) and a folder of another user are not changed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
        folder.chmod(0o700)


_announcements: list[IO[str]] = []  # kept open, because the lock on the file shows that this process runs


def _open_private(path: str, _: int) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def claim(data_dir: Path, name: str) -> IO[str]:
    """Called by a service: open and lock its empty announcement. A child that inherits the file holds the lock too."""
    make_private(data_dir)
    file = open(data_dir / f"{name}.json", "r+", opener=_open_private)  # noqa: SIM115  kept open
    # Erase the previous service's announcement before the exclusive lock makes it valid, so that no process takes the
    # old pid for ours. The file is overwritten in place and never made shorter, so that this works on a full disk.
    fcntl.flock(file, fcntl.LOCK_SH)
    file.write(" " * max(ANNOUNCEMENT_BYTES, os.fstat(file.fileno()).st_size))
    file.flush()
    fcntl.flock(file, fcntl.LOCK_EX)
    _announcements.append(file)
    return file


def announce(announcement: IO[str], pid: int, **facts: int) -> None:
    """Called by a service when it can be used. SIGTERM to `pid` must stop it."""
    announcement.seek(0)
    with suppress(OSError):  # for example a full disk
        Path(announcement.name).with_suffix(".pid").write_text(f"{pid}\n")
    json.dump({"pid": pid, **facts}, announcement)
    announcement.flush()


def running(data_dir: Path, name: str) -> Facts | None:
    """The facts that a running service has announced; None if it does not run."""
    try:
        with open(data_dir / f"{name}.json") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return cast(Facts | None, json.loads(file.read().strip() or "null"))
    except (FileNotFoundError, json.JSONDecodeError):
        pass
    return None


def find_running(settings: Settings, name: str) -> Settings:
    """The settings with the ports of this service, if another terminal of this checkout runs it."""
    facts = running(settings.data_dir, name) or {}
    return settings.model_copy(update={setting: port for setting, port in facts.items() if setting != "pid"})


def find_running_redis(settings: Settings) -> Settings:
    """The same for the embedded Redis of `settings`: Valkey, its Sentinel set-up, or its cluster."""
    return find_running(settings, "valkey" if settings.topology == "single" else settings.topology)


def running_redis(data_dir: Path) -> str | None:
    """The URL of the embedded Redis of any topology that another terminal runs; None if there is none."""
    for name in ("valkey", "sentinel", "cluster"):
        if facts := running(data_dir, name):
            topology = "single" if name == "valkey" else name
            return Settings.model_construct(topology=topology, **facts).redis  # type: ignore[arg-type]
    return None


async def stop_or_abandoned(data_dir: Path, name: str) -> str:
    """Called by a service: wait until it is told to stop or no terminal uses it any more. Returns the reason."""
    stop = asyncio.create_task(stop_requested())
    with open(data_dir / f"{name}.users", "w") as users:  # noqa: ASYNC230  a lock file, at the start
        while not stop.done():
            await asyncio.wait([stop], timeout=CHECK_SECONDS)
            if _try_exclusive(users):
                _announcements.append(users)  # a new user waits until this process has ended
                stop.cancel()
                return "no terminal uses it any more"
    return stop.result()


def _try_exclusive(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def exclusive(path: Path, stopped: Callable[[], bool] = lambda: False) -> Iterator[None]:
    with open(path, "w") as file:
        while not _try_exclusive(file):  # another user is starting or stopping the service
            if stopped():
                raise StartStopped
            time.sleep(0.01)
        yield
