"""The patches of the chapters: `make break-NAME` applies each to the code, and `make restore` takes it back."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import LIMIT, ROOT, clean_environment
from tests.support.sessions import a_copy

PATCHES = {path.stem: path for path in sorted(ROOT.glob("[1-9]_*/patches/*.patch"))}


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    """The repository without .git."""
    with a_copy(tmp_path / "copy") as folder:
        yield folder


def make(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", target]
    return subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=LIMIT)


def sources(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for pattern in ("[1-9]_*/**/*.py", "eventlog/**/*.py", "resque/**/*.py", "**/*.lua")
        for path in folder.glob(pattern)
        if ".venv" not in path.parts
    }


@pytest.mark.parametrize("name", PATCHES)
def test_a_patch_is_applied_once_and_taken_back(name: str, copy: Path) -> None:
    before = sources(copy)
    applied = make(copy, f"break-{name}")
    assert applied.returncode == 0, applied.stderr
    after = sources(copy)
    changed = [file for file in after if after[file] != before[file]]
    assert applied.stdout == f"changed: {', '.join(changed)}; make restore takes it back\n"
    for file in changed:
        if file.endswith(".py"):
            compile(after[file], file, "exec")
    again = make(copy, f"break-{name}")
    assert (again.returncode, sources(copy)) == (2, after)
    assert again.stderr.startswith(str(PATCHES[name].relative_to(ROOT)) + " is applied already; make restore takes it")
    restored = make(copy, "restore")
    assert (restored.returncode, restored.stdout) == (0, f"restored: {', '.join(changed)}\n")
    assert sources(copy) == before
    assert make(copy, "restore").stdout == "no patch is applied\n"


@pytest.mark.skipif(shutil.which("patch") is None, reason="no patch program")
@pytest.mark.parametrize("name", PATCHES)
def test_patch_applies_it_too(name: str, copy: Path) -> None:
    """As a reader does without `make`; its line numbers need not be exact."""
    before = sources(copy)
    for options in ([], ["-R"]):
        done = subprocess.run(
            ["patch", "-p1", "--no-backup-if-mismatch", *options],
            cwd=copy, input=PATCHES[name].read_text(), capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        assert (sources(copy) == before) == bool(options)


def test_a_patch_that_does_not_fit_changes_nothing(copy: Path) -> None:
    file = copy / "eventlog" / "consumers.py"
    file.write_text(file.read_text().replace("event = self._wanted(claimed)\n", "event = self._wanted( claimed )\n"))
    before = sources(copy)
    done = make(copy, "break-commit_first")
    assert done.returncode == 2
    said = (
        "6_event_bus/patches/commit_first.patch does not fit: eventlog/consumers.py has other changes in that place\n"
    )
    assert done.stderr.startswith(said)
    assert sources(copy) == before


def test_an_unknown_patch_is_one_line_that_lists_all(copy: Path) -> None:
    done = make(copy, "break-nonsense")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        f"there is no patch nonsense; there are {', '.join(PATCHES)}",
    )


@pytest.mark.parametrize("name", PATCHES)
def test_its_chapter_says_how_to_apply_it_and_how_to_take_it_back(name: str) -> None:
    text = (PATCHES[name].parents[1] / "README.md").read_text()
    assert f"make break-{name}\n" in text
    assert re.search(r"^make restore$", text[text.index(f"make break-{name}") :], re.MULTILINE)


def test_a_printed_diff_of_a_patch_is_its_own() -> None:
    text = (ROOT / "6_event_bus" / "README.md").read_text()
    [printed] = [diff for diff in re.findall(r"(?ms)^```diff\n(.*?)^```$", text) if "_events.commit(claimed)" in diff]
    assert printed in PATCHES["commit_first"].read_text()
