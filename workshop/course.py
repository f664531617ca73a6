"""The exercises in their order, and the files of each. `order.toml` has the order, and for each exercise:

name      the folder in workshop/exercises/
title     one line
minutes   how long it takes
chapter   the chapter to read before
question  asked before the first check, where the exercise breaks something; the answer is a number
unit      what the number counts
fails     a part of what the check says of the starting point
"""

import re
import shutil
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from common.processes.chapter import chapter_module
from common.processes.patches import apply, hunks_of

FOLDER = Path(__file__).parent
EXERCISES = FOLDER / "exercises"
HINTS = 3


@dataclass(frozen=True)
class Exercise:
    number: int
    name: str
    title: str
    minutes: int
    chapter: str
    fails: str
    question: str = ""
    unit: str = ""

    @property
    def folder(self) -> Path:
        return EXERCISES / self.name

    @property
    def text(self) -> str:
        return (self.folder / "README.md").read_text()

    @property
    def start(self) -> Path:
        return self.folder / "start"

    @property
    def solution(self) -> Path:
        return self.folder / "solution"

    def hint(self, number: int) -> str:
        """Hint 1, 2 or 3."""
        parts = re.split(r"(?m)^## Hint \d\n", (self.folder / "hints.md").read_text())
        return parts[number].strip()

    @property
    def module(self) -> Any:
        """`check.py`, with `check` and perhaps `stage` and `result`."""
        return chapter_module(f"workshop.exercises.{self.name}.check")

    def variants(self, kind: str) -> list["Variant"]:
        """Patches of the solution: `wrong` ones, and `right` ones that differ from ours."""
        return [Variant(self, path) for path in sorted((self.folder / kind).glob("*.patch"))]

    def files(self) -> list[str]:
        return sorted(path.name for path in self.start.iterdir() if path.is_file())

    def is_changed_in(self, folder: Path) -> bool:
        """Whether one of the learner's files differs from the starting point. A missing file counts as different."""
        mine = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        return any(mine.get(name) != (self.start / name).read_bytes() for name in self.files())

    def copy_to(self, folder: Path) -> None:
        """Give the learner the starting point. Files that are there stay as they are."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.files():
            if not (folder / name).exists():
                shutil.copyfile(self.start / name, folder / name)

    def solve_in(self, folder: Path) -> None:
        """Put the solution's files into this folder, and the given files of the starting point."""
        self.copy_to(folder)
        for path in self.solution.iterdir():
            if path.is_file():
                shutil.copyfile(path, folder / path.name)


@dataclass(frozen=True)
class Variant:
    """Another solution, as a patch of ours. The first line says what it does, the second how a wrong one is refused."""

    exercise: Exercise
    path: Path

    @property
    def refused(self) -> str:
        """A part of what the check says of it."""
        return self.path.read_text().splitlines()[1].removeprefix("refused: ")

    def write_to(self, folder: Path) -> None:
        """Apply it to the solution in this folder. Raises DoesNotFit."""
        apply([hunk._replace(file=folder / hunk.file) for hunk in hunks_of(self.path)])


@cache
def exercises() -> tuple[Exercise, ...]:
    entries = cast(list[dict[str, Any]], tomllib.loads((FOLDER / "order.toml").read_text())["exercise"])
    return tuple(Exercise(number, **entry) for number, entry in enumerate(entries, 1))
