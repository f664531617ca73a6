"""The saved results: results/compare.json, faults.json, steps.json, bench.json and peers.json."""

import json
from functools import cache
from typing import Any, cast

from lab.harness.command import RESULTS
from lab.harness.figures import Facts


class NotMeasured(Exception):
    """A block shows something that is not among the results."""


@cache
def results(name: str) -> dict[str, Any]:
    """Raises FileNotFoundError if there are none. `make NAME` writes them."""
    facts: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return facts


def is_saved(name: str) -> bool:
    """Results that are newer than the last run may not be there yet."""
    return (RESULTS / f"{name}.json").exists()


def cell(subject: str, fault: str) -> Facts | None:
    cells = (c for c in results("faults")["cells"] if (c["subject"], c["fault"]) == (subject, fault))
    return next(cells, None)


def measured_cell(subject: str, fault: str) -> Facts:
    """Raises NotMeasured."""
    if (found := cell(subject, fault)) is None or "lost" not in found:
        raise NotMeasured(f"{fault} of {subject}: make faults")
    return found


def step_cells() -> dict[tuple[str, str], Facts]:
    """The cells of the steps, by subject and fault."""
    return {(cell["subject"], cell["fault"]): cell for cell in results("steps")["cells"]}


def bench_row(name: str) -> Facts:
    """Raises NotMeasured."""
    for found in results("bench")["rows"]:
        if found["name"] == name:
            return cast(Facts, found)
    raise NotMeasured(f"{name}: make bench")
