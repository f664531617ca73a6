"""Replaces the measured blocks of the READMEs.

A block begins with `<!-- measured: NAME -->` and ends with `<!-- end -->`, each on a line of its own. Do not edit the
text between them: `make tables` overwrites it. tests/lab/test_tables.py fails when the text differs from the results.
"""

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from lab.harness.command import RESULTS
from lab.harness.processes import ROOT
from lab.tables.chapters import costs_of_the_log, costs_of_the_queue, measured_faults, measured_steps, staircase
from lab.tables.engines import compared_engines, engines
from lab.tables.overview import bench, compared, ladder, matrix, parts
from lab.tables.peers import peers, peers_in_short
from lab.tables.replicas import topology
from lab.tables.saved import NotMeasured

_BLOCK = re.compile(r"(?ms)^(<!-- measured: ([\w-]+) -->\n)(.*?)^(<!-- end -->)$")

BLOCKS: dict[str, Callable[[], Iterator[str]]] = {
    "ladder": ladder,
    "staircase": staircase,
    "compare": partial(compared, "compare"),
    "compare-steps": partial(compared, "compare_steps"),
    "compare-engines": compared_engines,
    "matrix": matrix,
    "topology": topology,
    "bench": bench,
    "parts": parts,
    "peers": peers,
    "peers-short": peers_in_short,
    "faults-1": partial(measured_faults, "1"),
    "faults-2": partial(measured_faults, "2"),
    "faults-3": partial(measured_faults, "3"),
    "faults-4": partial(measured_faults, "4", "4w"),
    "faults-5": partial(measured_faults, "5", "5r"),
    "faults-6": partial(measured_faults, "6", "6s", "6j", "6jc"),
    "steps-3": partial(measured_steps, 3),
    "steps-5": partial(measured_steps, 5),
    "steps-6": partial(measured_steps, 6),
    "costs-5": costs_of_the_queue,
    "costs-6": costs_of_the_log,
    "engines-5": partial(engines, 5),
    "engines-6": partial(engines, 6),
}


class NoSuchBlock(Exception):
    """A README has a block whose name is not in BLOCKS."""


def render(text: str) -> str:
    """The text of a README with its blocks replaced. Raises NoSuchBlock, NotMeasured or FileNotFoundError."""

    def write(block: re.Match[str]) -> str:
        if block[2] not in BLOCKS:
            raise NoSuchBlock(block[2])
        return "".join([block[1], *[f"{line}\n" for line in BLOCKS[block[2]]()], block[4]])

    return _BLOCK.sub(write, text)


def readmes() -> list[Path]:
    return [
        ROOT / "README.md",
        *sorted(ROOT.glob("[1-9]_*/README.md")),
        ROOT / "resque" / "README.md",
        RESULTS / "README.md",
    ]


def main() -> None:
    for path in readmes():
        before = path.read_text()
        try:
            after = render(before)
        except (NoSuchBlock, NotMeasured, FileNotFoundError) as error:
            sys.exit(f"{path.relative_to(ROOT)}: {error}")
        if after != before:
            path.write_text(after)
            print(f"{path.relative_to(ROOT)}: written")
