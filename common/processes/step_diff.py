"""`make diff-5 STEP=move`: how a step of a chapter differs from the step before it, file by file.

The first step is shown whole. The files of a step are its module, and what it uses of the folder `steps/`: modules and
Lua scripts.
"""

import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from common.processes.run import find_package
from common.processes.steps import check_step, steps_of
from common.settings import exit_with_usage_error, read_settings


def files_of(package: str, step: str) -> list[Path]:
    """The step's module first, then what it uses, and what that uses."""
    folder = Path(package) / "steps"
    files = [folder / f"{step}.py"]
    for path in files:  # grows meanwhile
        files += [other for other in sorted(folder.rglob("*.*")) if other not in files and uses(path, other)]
    return files


def uses(path: Path, other: Path) -> bool:
    """Whether this module imports the other one, or names that script. `*.lua` names all."""
    text = path.read_text()
    if other.suffix == ".lua":
        return path.suffix == ".py" and re.search(rf'"({other.stem}|\*)\.lua"', text) is not None
    return other.suffix == ".py" and re.search(rf"^from \.{other.stem} import ", text, re.MULTILINE) is not None


def differences(package: str, step: str) -> Iterator[str]:
    """The lines of what `make diff-N STEP=…` prints."""
    steps = list(steps_of(package))
    number = steps.index(step)
    files = files_of(package, step)
    if number == 0:
        for path in files:
            yield from [f"==> {path}", *path.read_text().splitlines(), ""]
        return
    before = files_of(package, steps[number - 1])
    yield from differing(before[0], files[0])
    for path in files[1:]:
        if path not in before:
            yield from differing(None, path)
    for path in before[1:]:
        if path not in files:
            yield from ["", f"not used any more: {path}"]


def differing(before: Path | None, after: Path) -> Iterator[str]:
    old = before.read_text().splitlines() if before else []
    return difflib.unified_diff(
        old, after.read_text().splitlines(), str(before or "/dev/null"), str(after), lineterm=""
    )


def main() -> None:
    settings = read_settings()
    package = find_package(sys.argv[1])
    step = check_step(settings, package)
    if step is None:
        exit_with_usage_error("usage: make diff-5 STEP=move")
    for line in differences(package, step):
        print(line)


if __name__ == "__main__":
    main()
