"""`python -m workshop.launcher`: starts the learner's programs as processes that a check can kill.

A check starts many programs. Each would import the same libraries, which takes half a second. This process imports
them once and forks for each program.

It reads requests from standard input, one JSON object per line:

    {"file", "arguments", "folder", "environment", "output"}   runs the file, or a package, in this folder; it prints
                                                               to `output`

It answers with lines of JSON: `{"started": pid}` in the order of the requests, and `{"ended": pid, "status": number}`,
where a negative status is a signal. When its standard input closes it kills all programs and ends, so no program
outlives the check that started it.
"""

import json
import os
import runpy
import selectors
import signal
import sys
from contextlib import suppress
from typing import Any

import aiohttp.web  # noqa: F401  imported here so that the programs need not
import redis.asyncio  # noqa: F401

import resque  # noqa: F401
from workshop import faults


class Launcher:
    def __init__(self) -> None:
        self._running: set[int] = set()
        self._rest = b""

    def serve(self) -> None:
        """Serve requests until standard input closes."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command that started this process
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if woken in ready:
                    os.read(woken, 4096)
                    self._reap()
                if 0 in ready and not self._read():
                    break
        for pid in self._running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _read(self) -> bool:
        """Start what the new requests ask for. Returns False at the end of the input."""
        if not (chunk := os.read(0, 1 << 16)):
            return False
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if pid := os.fork():
                self._running.add(pid)
                _answer({"started": pid})
            else:
                _become(request)
        return True

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._running.discard(pid)
            _answer({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _answer(answer: dict[str, int]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


def _become(request: dict[str, Any]) -> None:
    """Run the program in this process, which has been forked for it. Never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        faults.prepare()
        sys.argv = [request["file"], *request["arguments"]]
        sys.path.insert(0, request["folder"])
        if request["file"].endswith(".py"):
            runpy.run_path(request["file"], run_name="__main__")
        else:
            runpy.run_module(request["file"], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.stdin = open(os.devnull)  # noqa: SIM115  the programs must not read the requests
    Launcher().serve()
