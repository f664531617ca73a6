"""What `make faults` has measured, as tables for a README."""

from typing import Any

from lab.compare.compare_report import machine_of
from lab.faults.promises import FAULTS, STEPS, SUBJECTS
from lab.harness.figures import Facts

SELDOM = ("failed", "queued", "recovered", "unexpected")
WORDS = {"duplicated": "twice", "failed": "given up", "queued": "still queued"}


LEGEND = (
    "*Given up*: named by its id in a failed list or a log. *Recovered*: the email came, though no 2xx did. *Answers*: "
    "how many of each HTTP status; none: the connection broke, or was refused. *Back after*: the longest time from the "
    "end of a fault until an email that was due after it was in the inbox."
)


def measured(cell: Facts) -> str:
    """lost 3; twice 0; 5 given up."""
    if "skipped" in cell:
        return f"not done: {cell['skipped']}"
    if "lost" not in cell:
        return "nothing"
    seldom = [f"{cell[name]} {WORDS.get(name, name)}" for name in SELDOM if cell[name]]
    return "; ".join([f"lost {cell['lost']}", f"twice {cell['duplicated']}", *seldom])


def answers(cell: Facts) -> str:
    """202: 142, 503: 312."""
    return ", ".join(f"{status}: {count:,}" for status, count in cell.get("answers", {}).items())


def back(cell: Facts) -> str:
    """The longest time from the end of a fault until an email that was due after it was in the inbox."""
    return f"{cell['back_ms'] / 1000:.1f} s" if cell.get("back_ms") else ""


def markdown(facts: dict[str, Any]) -> str:
    settings = facts["settings"]
    totals = ", ".join(f"{number:,} {name}" for name, number in facts["totals"].items())
    parts = [
        "# Promised and measured",
        "",
        f"`make faults` with SEED={settings['SEED']}, KILLS={settings['KILLS']}, RATE={settings['RATE']:g}: each fault "
        f"{settings['KILLS']} times, at {settings['RATE']:g} emails a second, in {facts['seconds']} seconds. "
        f"Redis with `appendfsync {settings['appendfsync']}`.",
        "",
        LEGEND,
        "",
        f"- {totals}",
        f"- {machine_of(facts)}",
        "",
    ]
    for subject in dict.fromkeys(cell["subject"] for cell in facts["cells"]):
        parts += [f"## {(SUBJECTS | STEPS)[subject].title}", "", *table(facts, subject), ""]
    return "\n".join(parts)


def table(facts: dict[str, Any], subject: str) -> list[str]:
    """The cells of one subject."""
    rows = ["| what was done | promised | measured | answers | back after |", "|---|---|---|---|---|"]
    for cell in facts["cells"]:
        if cell["subject"] == subject:
            broken = f" **BROKEN: {'; '.join(cell['broken'])}**" if cell["broken"] else ""
            rows.append(
                f"| {FAULTS[cell['fault']]} | {cell.get('promised', '')} | {measured(cell)}{broken} "
                f"| {answers(cell)} | {back(cell)} |"
            )
    return rows
