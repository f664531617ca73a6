"""The results of `make faults`, as tables for a README."""

from typing import Any

from lab.compare.compare_report import machine_of
from lab.faults.catalogue import EVERY_FAULT, EVERY_SUBJECT
from lab.harness.figures import Facts

RARE = ("failed", "queued", "recovered", "unexpected")
WORDS = {"duplicated": "twice", "failed": "given up", "queued": "still queued"}

LEGEND = (
    "*Given up*: not sent, and its id is in a failed list or a log. *Recovered*: delivered, although the caller got no "
    "2xx. *In flight*: requested, and not yet delivered when the fault began. *Answers*: how many callers got each "
    "HTTP status; *none* means that the connection broke or was refused. *Recovery time*: the longest time from the "
    "end of a fault until an email that was due after it was in the inbox."
)


def measured(cell: Facts) -> str:
    """Like `lost 3; twice 0; 5 given up`."""
    if "skipped" in cell:
        return f"not measured: {cell['skipped']}"
    if "lost" not in cell:
        return "nothing"
    rare = [f"{cell[name]} {WORDS.get(name, name)}" for name in RARE if cell[name]]
    rare += [f"{cell['unreplicated']:,} bytes not replicated"] if cell.get("unreplicated") else []
    back = [f"back after {recovery_time(cell)}"] if "back within" in cell.get("promised", "") else []
    return "; ".join([f"lost {cell['lost']}", f"twice {cell['duplicated']}", *rare, *back])


def answers(cell: Facts) -> str:
    """Like `202: 142, 503: 312`."""
    return ", ".join(f"{status}: {count:,}" for status, count in cell.get("answers", {}).items())


def recovery_time(cell: Facts) -> str:
    return f"{cell['recovery_ms'] / 1000:.1f} s" if cell.get("recovery_ms") else ""


def markdown(facts: dict[str, Any]) -> str:
    settings = facts["settings"]
    totals = ", ".join(f"{number:,} {name}" for name, number in facts["totals"].items())
    parts = [
        "# Promised and measured",
        "",
        f"`make faults` with SEED={settings['SEED']}, KILLS={settings['KILLS']}, RATE={settings['RATE']:g}: each fault "
        f"{settings['KILLS']} times, at {settings['RATE']:g} emails per second, in {facts['seconds']} seconds. "
        f"Redis runs with `appendfsync {settings['appendfsync']}`.",
        "",
        LEGEND,
        "",
        f"- {totals}",
        f"- {machine_of(facts)}",
        "",
    ]
    for subject in dict.fromkeys(cell["subject"] for cell in facts["cells"]):
        parts += [f"## {EVERY_SUBJECT[subject].title}", "", *table(facts, subject), ""]
    return "\n".join(parts)


def table(facts: dict[str, Any], subject: str) -> list[str]:
    """The cells of one subject."""
    rows = ["| fault | promised | measured | answers | recovery time |", "|---|---|---|---|---|"]
    for cell in facts["cells"]:
        if cell["subject"] == subject:
            broken = f" **BROKEN: {'; '.join(cell['broken'])}**" if cell["broken"] else ""
            rows.append(
                f"| {EVERY_FAULT[cell['fault']]} | {cell.get('promised', '')} | {measured(cell)}{broken} "
                f"| {answers(cell)} | {recovery_time(cell)} |"
            )
    return rows
