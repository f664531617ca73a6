"""Which folder may import which: the contracts in pyproject.toml, and for the chapters, whose names no import linter
can read, the same rules by reading their import statements.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import ROOT

CHAPTERS = sorted(path.name for path in ROOT.glob("[1-9]_*"))
ENGINES = {"5_remote_queue": {"resque"}, "6_event_bus": {"eventlog", "resque"}}  # an event may become a job
OURS = {"asynckit", "resque", "eventlog", "common", "examples", "lab", "workshop", "tests"}
LIBRARIES = {"asynckit", "resque", "eventlog", "common"}
IMPORTS_BY_NAME = "common/processes/chapter.py"


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports; of a relative import only the part behind the dots."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def python_files(folder: str) -> list[Path]:
    return [path for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts]


def test_the_contracts_of_the_folders_are_kept() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_imports_common_asynckit_and_its_engine(chapter: str) -> None:
    allowed = {"common", "asynckit"} | ENGINES.get(chapter, set())
    for path in python_files(chapter):
        foreign = {name for name in imported(path) if name.partition(".")[0] in OURS - allowed}
        assert not foreign, path


def test_what_a_learner_gets_imports_the_libraries_only() -> None:
    for path in python_files("workshop/exercises"):
        if path.name not in ("check.py", "data.py"):
            foreign = {name for name in imported(path) if name.partition(".")[0] in OURS - LIBRARIES}
            assert not foreign, path


def test_no_test_imports_another_test() -> None:
    for path in python_files("tests"):
        assert not [name for name in imported(path) if name.startswith("tests.") and ".test_" in name], path


def test_modules_are_imported_by_name_in_one_place() -> None:
    found = {
        str(path.relative_to(ROOT))
        for folder in OURS | set(CHAPTERS)
        for path in python_files(folder)
        if path != Path(__file__) and "import_module" in path.read_text()
    }
    assert found == {IMPORTS_BY_NAME}


@pytest.mark.parametrize("engine", ["asynckit", "resque", "eventlog"])
def test_an_engine_reads_no_environment(engine: str) -> None:
    for path in python_files(engine):
        assert not any(word in path.read_text() for word in ("os.environ", "getenv", "pydantic")), path
