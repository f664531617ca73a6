"""The tables of one chapter: its faults, its steps, and what it costs compared with the chapter before."""

from collections.abc import Iterator

from lab.compare.compare_report import machine_of
from lab.faults import faults_report
from lab.faults.promises import FAULTS, STEPS, SUBJECTS, faults_of
from lab.harness.figures import format_number
from lab.tables.overview import lost_and_twice
from lab.tables.saved import bench_row, results, step_cells

STAIRS = {
    "3-pass_on": "gets each email from the master, which keeps nothing, and queues it in memory",
    "5-pop": "takes the job out of the queue, then sends",
    "5-move": "moves the job to a list of its own, sends, then removes it",
    "5-lease": "claims the job with a token and a deadline, sends, then acknowledges",
    "6-cursor_first": "moves the cursor, then sends",
    "6-commit_after": "sends, then moves the cursor",
    "6-group": "reads as a member of a consumer group, sends, then acknowledges",
}
"""What the worker of each step does."""


def measured_faults(*subjects: str) -> Iterator[str]:
    """All cells of a chapter."""
    facts = results("faults")
    settings = facts["settings"]
    yield "<details>"
    yield (
        f"<summary>Promised and measured: each fault {settings['KILLS']} times, at {settings['RATE']:g} emails per "
        f"second (<code>make faults</code>, SEED={settings['SEED']})</summary>"
    )
    yield ""
    measured = {cell["subject"] for cell in facts["cells"]}
    for subject in [one for one in subjects if one in measured]:
        if len(subjects) > 1:
            yield f"*{SUBJECTS[subject].title}*"
            yield ""
        yield from faults_report.table(facts, subject)
        yield ""
    yield "</details>"


def measured_steps(number: int) -> Iterator[str]:
    """The steps of a chapter: lost / twice for each fault, one row per step."""
    facts, cells = results("steps"), step_cells()
    promised = {fault for step in STEPS.values() if step.number == number for fault in faults_of(step)}
    faults = [fault for fault in FAULTS if fault in promised - {"none"}]
    yield "| lost / twice | " + " | ".join(FAULTS[fault] for fault in faults) + " |"
    yield "|---|" + "---|" * len(faults)
    for name, step in STEPS.items():
        if step.number == number:
            found = [lost_and_twice(cells.get((name, fault))) for fault in faults]
            yield f"| `{step.settings['STEP']}` | {' | '.join(found)} |"
    settings = facts["settings"]
    yield ""
    yield (
        f"(`make faults STEPS=1`: each fault {settings['KILLS']} times, at {settings['RATE']:g} emails per second, "
        f"SEED={settings['SEED']}; {machine_of(facts)}. An empty field was not measured.)"
    )


def staircase() -> Iterator[str]:
    """What each step loses when its worker is killed, and how many emails two workers send twice."""
    cells = step_cells()
    yield "| step | its worker | lost, worker killed | sent twice, two workers |"
    yield "|---|---|---|---|"
    for name, words in STAIRS.items():
        killed, second = cells.get((name, "worker-kill")), cells.get((name, "worker-second"))
        if killed is None:  # the step is newer than the results
            continue
        lost = f"**{killed['lost']}** of {killed['acknowledged']:,}, in {killed['injections']} kills"
        twice = "" if second is None else f"{second['duplicated']:,} of {second['acknowledged']:,}"
        yield f"| {STEPS[name].number} `{STEPS[name].settings['STEP']}` | {words} | {lost} | {twice} |"
    yield ""
    yield "(`make faults STEPS=1`. An empty field was not measured.)"


def costs_of_the_queue() -> Iterator[str]:
    yield "| | 4, pub/sub | 5, the queue |"
    yield "|---|---|---|"
    for words, what, side in (
        ("accepting, as a fraction of a bare aiohttp handler", "accepts", "ratio"),
        ("delivering to a fast mail server, emails per second", "delivers", "measured"),
        ("from idle, from the request to the email (median, ms)", "from idle", "measured"),
    ):
        figures = [format_number(bench_row(f"strategy {number} {what}")[side]["median"]) for number in (4, 5)]
        yield f"| {words} | {' | '.join(figures)} |"
    waiting = bench_row("queue, a waiting job")
    more = waiting["measured"]["median"] - waiting["reference"]["median"]
    yield f"| Redis memory for a waiting email | none: a worker holds it | its JSON, and {more:.0f} bytes |"


def costs_of_the_log() -> Iterator[str]:
    yield "| | partitions and Lua | Streams |"
    yield "|---|---|---|"
    for words, name in (
        ("appends per second, one process, batches of 1,000", "the log appends"),
        ("claims and commits per second", "the log claims and commits"),
        ("bytes of memory for an event", "the log in memory"),
    ):
        found = bench_row(name)
        figures = (format_number(found[side]["median"]) for side in ("measured", "reference"))
        yield f"| {words} | {' | '.join(figures)} |"
