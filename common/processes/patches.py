"""`make break-NAME` and `make restore`: experiments that change code.

A patch is a unified diff, `N_name/patches/NAME.patch`, which `patch -p1` applies too. Here it is applied without that
program or git: a patch fits if what each hunk expects is in its file exactly once.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

from common.settings import exit_with_usage_error


class Hunk(NamedTuple):
    file: Path
    before: str
    after: str


class DoesNotFit(Exception):
    """The file, whose text is not what the patch expects."""


def known_patches() -> dict[str, Path]:
    return {path.stem: path for path in sorted(Path().glob("[1-9]_*/patches/*.patch"))}


def hunks_of(patch: Path) -> list[Hunk]:
    """The hunks of a unified diff. Lines before the first file are a comment."""
    hunks: list[Hunk] = []
    file = Path()
    for line in patch.read_text().splitlines(keepends=True):
        if found := re.match(r"\+\+\+ b/(\S+)", line):
            file = Path(found[1])
        elif line.startswith("@@ "):
            hunks.append(Hunk(file, "", ""))
        elif hunks and line[0] in " +-" and not line.startswith("--- a/"):
            _, before, after = hunks[-1]
            hunks[-1] = Hunk(file, before + line[1:] * (line[0] != "+"), after + line[1:] * (line[0] != "-"))
    return hunks


def apply(hunks: list[Hunk]) -> list[Path]:
    """Change all files, or none. Returns them. Raises DoesNotFit."""
    texts: dict[Path, str] = {}
    for hunk in hunks:
        text = texts.get(hunk.file) or hunk.file.read_text()
        if text.count(hunk.before) != 1:
            raise DoesNotFit(hunk.file)
        texts[hunk.file] = text.replace(hunk.before, hunk.after)
    for file, text in texts.items():
        file.write_text(text)
    return list(texts)


def reverse(hunks: list[Hunk]) -> list[Hunk]:
    return [Hunk(file, after, before) for file, before, after in reversed(hunks)]


def is_applied(hunks: list[Hunk]) -> bool:
    return all(hunk.file.read_text().count(hunk.after) == 1 for hunk in hunks)


def break_by(name: str) -> None:
    patches = known_patches()
    if name not in patches:
        exit_with_usage_error(f"there is no patch {name}; there are {', '.join(patches)}")
    hunks = hunks_of(patches[name])
    if is_applied(hunks):
        exit_with_usage_error(f"{patches[name]} is applied already; make restore takes it back")
    try:
        changed = apply(hunks)
    except DoesNotFit as error:
        exit_with_usage_error(f"{patches[name]} does not fit: {error} has other changes in that place")
    print(f"changed: {', '.join(map(str, changed))}; make restore takes it back")


def restore() -> None:
    """Take back all patches that are applied."""
    applied = {path: hunks for path in known_patches().values() if is_applied(hunks := hunks_of(path))}
    for hunks in applied.values():
        print(f"restored: {', '.join(map(str, apply(reverse(hunks))))}")
    if not applied:
        print("no patch is applied")


def main() -> None:
    match sys.argv[1:]:
        case ["break", name]:
            break_by(name)
        case ["restore"]:
            restore()
        case _:
            exit_with_usage_error("usage: make break-NAME, make restore")


if __name__ == "__main__":
    main()
