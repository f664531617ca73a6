"""Runs the sessions of the chapters: pastes each block into bash and compares its output with the chapter.

The format, for authors:

    ```sh    Commands for a second terminal, at the root of the repository, without prompt and pids, with the ports of
             `make run-N` (8080, 8025, 6390). The test replaces these by free ports. All blocks of a chapter run in
             order in one bash, in a copy of the repository with an empty `.data`, so they may change code and data.
             If the last line is `make run-N …`, the block is for the first terminal: the test stops the running
             strategy as Ctrl-C does, runs the lines before, and starts the strategy.
    ```text  Directly after an `sh` block: its whole output, including standard error. `json` means the same. In a
             line, `…` matches any text; a line with `…` alone matches any number of lines. Ids, pids, times and the
             names of workers need no `…`.
    ```log   Lines that the terminal of `make run-N` prints, in any order, with other lines in between.

A comment before an `sh` block changes how it is run:

    <!-- session: another terminal -->     the strategy is started in addition to those that run
    <!-- session: within 15 s -->          the block changes nothing; it is repeated until it prints what is shown
    <!-- session: not run: REASON -->      the test does not run it; REASON is one of NOT_RUN

At the end of a chapter all faults of the inbox must be 0.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.support.programs import LIMIT, ROOT, Program, ask, clean_environment, free_ports, wait_until

NOT_RUN = {
    "it takes minutes",
    "it needs a second machine",
    "it needs a server of your own",
    "it is a template",
    "a test of its own runs it",
}
BLOCK_SECONDS = 120.0  # for one block of a session
PORTS = {"PORT": "8080", "INBOX_PORT": "8025", "VALKEY_PORT": "6390", "INBOX_SMTP_PORT": "1025"}

_FENCE = re.compile(r"(?ms)^(?:<!-- session: (?P<note>[^\n]*?) -->\n+)?```(?P<language>\w+)\n(?P<text>.*?)^```$")
_START = re.compile(r"make run-\d\b.*")
_VARYING = [
    (re.compile(r"<[0-9a-f]{32}@"), "<ID@"),
    (re.compile(r" @ \d+"), " @ PID"),
    (re.compile(r"\b[\w-]+\.[0-9a-f]{8}:\d+"), "HOST.NONCE:PID"),
    (re.compile(r"\b\d\d:\d\d:\d\d\.\d{3}\b"), "TIME"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "DATE"),
    (re.compile(r"\b\d+(\.\d+)? ms\b"), "N ms"),
    (re.compile(r"\b\d+\.\d{3,}\b"), "SECONDS"),
    (re.compile(r"\b1[6-9]\d{11}\b"), "MILLISECONDS"),
    (re.compile(r"(consuming as) [0-9a-f]{32}"), r"\1 NAME"),
]


class Block(NamedTuple):
    """One block of a session, with its expected output (None: the chapter shows none)."""

    note: str
    language: str
    text: str
    output: str | None = None

    @property
    def not_run(self) -> str | None:
        return self.note.removeprefix("not run: ") if self.note.startswith("not run: ") else None

    @property
    def within(self) -> float:
        found = re.fullmatch(r"within (\d+) s", self.note)
        return float(found[1]) if found else 0.0


def blocks_of(readme: Path) -> list[Block]:
    """The `sh` blocks of a chapter with their output, and its `log` blocks."""
    text, blocks = readme.read_text(), []
    end = 0
    for fence in _FENCE.finditer(text):
        language, follows = fence["language"], not text[end : fence.start()].strip()
        if language in ("sh", "log"):
            blocks.append(Block(fence["note"] or "", language, fence["text"]))
        elif language in ("text", "json") and blocks and blocks[-1].language == "sh" and follows:
            blocks[-1] = blocks[-1]._replace(output=fence["text"])
        end = fence.end()
    return blocks


def run_sessions(chapter: str, folder: Path) -> None:
    """Run the sessions of a chapter in a copy of the repository in this folder. "" is the README of the root."""
    blocks = blocks_of(ROOT / chapter / "README.md")
    with a_copy(folder / "copy") as copy, Session(copy) as session:
        for block in blocks:
            if block.language == "log":
                session.expect_log(block.text)
            elif block.not_run is None:
                session.run(block)
        session.expect_no_faults()


@contextmanager
def a_copy(folder: Path) -> Iterator[Path]:
    """A copy of the repository, with this environment as its `.venv`."""
    hidden = shutil.ignore_patterns(".*", "node_modules", "*.pyc.*")  # the last are being written
    shutil.copytree(ROOT, folder, ignore=hidden)
    (folder / ".venv").symlink_to(sys.prefix)
    yield folder
    shutil.rmtree(folder)


class Session:
    """Terminals in a copy of the repository: those of `make run-N`, and a bash for the other blocks."""

    def __init__(self, copy: Path) -> None:
        self._copy = copy
        ports = [str(port) for port in free_ports(len(PORTS))]
        self._ports = dict(zip(PORTS.values(), ports, strict=True))
        (copy / ".env").write_text("".join(f"{name}={port}\n" for name, port in zip(PORTS, ports, strict=True)))
        self._terminals: list[Program] = []
        self._seen: set[tuple[int, int]] = set()
        self._bash = Bash(copy)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stop_terminals()
        finally:
            self._bash.close()

    def run(self, block: Block) -> None:
        *before, last = block.text.rstrip("\n").split("\n")
        if _START.fullmatch(last):
            if block.note != "another terminal":
                self._stop_terminals()
            if before:
                self._paste("\n".join(before))
            self._start(last)
        else:
            self._compare(block)

    def _compare(self, block: Block) -> None:
        deadline = time.monotonic() + (5 * block.within)  # on a slow machine
        while True:
            printed = self._paste(block.text)
            if block.output is None or matches(block.output, printed):
                return
            if time.monotonic() > deadline:
                shown = f"\n--- the chapter shows:\n{block.output}--- it printed:\n{printed}"
                raise AssertionError(f"{block.text}{shown}--- the terminals:\n{self._said()}")
            time.sleep(0.5)  # a block usually starts a Python

    def _paste(self, text: str) -> str:
        for known, ours in self._ports.items():
            text = re.sub(rf"\b{known}\b", ours, text)
        return self._as_known(self._bash.run(text))

    def _as_known(self, text: str) -> str:
        for known, ours in self._ports.items():
            text = re.sub(rf"\b{ours}\b", known, text)
        return text

    def _start(self, command: str) -> None:
        assert not re.search(r"[;&|$`]", command), command
        words = [word.strip("'\"") for word in re.findall(r"(?:[^\s'\"]|'[^']*'|\"[^\"]*\")+", command)]
        words = [re.sub(r"=(['\"])(.*)\1$", r"=\2", word) for word in words]
        terminal = Program(words, {}, self._copy)
        self._terminals.append(terminal)
        terminal.wait_for_line(r"stop it all +Ctrl-C|: wait|^\[\w+ @ \d+\] ")
        if "ROLE=" not in command and "DEMO=" not in command:
            self._wait_until_ready(terminal)
        if (
            command.startswith("make run-5")
            and "ROLE=" not in command
            and "DEMO=" not in command
            and "STEP=" not in command
        ):
            terminal.wait_for_line("ready to send")

    def _wait_until_ready(self, terminal: Program) -> None:
        """Wait for the last line of the greeting, and until the strategy can accept emails."""
        terminal.wait_for_line(r"stop it all +Ctrl-C")
        url = f"http://127.0.0.1:{self._ports['8080']}"
        wait_until(lambda: ask(url, "/health").status == 200, f"it can accept emails: {terminal.output}")

    def expect_log(self, text: str) -> None:
        """Wait until the terminals have printed these lines. A printed line matches only one expected line."""
        for line in text.splitlines():
            if line.strip() and line != "…":
                wait_until(partial(self._take, line), f"the line {line!r} in:\n{self._said()}")

    def _take(self, expected: str) -> bool:
        for number, terminal in enumerate(self._terminals):
            for place, line in enumerate(list(terminal.lines)):
                if (number, place) not in self._seen and matches(expected, self._as_known(line)):
                    self._seen.add((number, place))
                    return True
        return False

    def expect_no_faults(self) -> None:
        if self._terminals:
            faults = ask(f"http://127.0.0.1:{self._ports['8025']}", "/api/faults").json
            left = {name: value for name, value in faults.items() if value and name != "refuse_code"}
            assert not left, f"the chapter leaves the inbox with faults: {left}"

    def _stop_terminals(self) -> None:
        for terminal in reversed(self._terminals):
            if terminal.process.poll() is None:
                terminal.stop()
            assert "Traceback" not in terminal.output, terminal.output
        self._terminals.clear()
        self._seen.clear()

    def _said(self) -> str:
        return "\n".join(terminal.output for terminal in self._terminals)


class Bash:
    """A shell that runs the blocks one after the other."""

    def __init__(self, folder: Path) -> None:
        self._number = 0
        self._folder = folder
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            env=clean_environment() | {"LC_ALL": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, text: str) -> str:
        """Run a block and return its output. Fails if it does not end within BLOCK_SECONDS."""
        self._number += 1
        block, mark = self._folder.parent / f"block-{self._number}.sh", f"--- end of block {self._number} ---"
        block.write_text(text + "\n")
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f". {block} </dev/null; printf '\\n%s\\n' '{mark}'\n")
        self._process.stdin.flush()
        alarm = threading.Timer(BLOCK_SECONDS, self._kill)
        alarm.start()
        lines: list[str] = []
        while (line := self._process.stdout.readline()) and line != f"{mark}\n":
            lines.append(line)
        alarm.cancel()
        assert line, f"not within {BLOCK_SECONDS:g} s: {text}\n{''.join(lines)}"
        return "".join(lines).removesuffix("\n")

    def _kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        self._kill()
        self._process.wait(LIMIT)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def normalised(text: str) -> str:
    """The text with placeholders for ids, pids, times and other things that differ between runs."""
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return text


def matches(shown: str, printed: str) -> bool:
    """Whether the printed output matches what the chapter shows, where `…` matches anything."""
    pattern = ""
    for line in normalised(shown).rstrip("\n").split("\n"):
        if line.strip() == "…":
            pattern += r"(?:.*\n)*"
        else:
            pattern += ".*".join(map(re.escape, line.rstrip().split("…"))) + r"[ \r]*\n"
    return re.fullmatch(pattern, normalised(printed).replace("\r", "").rstrip("\n") + "\n") is not None
