"""`make tables`: write what was measured into the READMEs, from results/*.json.

A block begins with `<!-- measured: NAME -->` and ends with `<!-- end -->`, each on a line of its own; what is between
is written here and nowhere else. A test fails when it is not what the results say (tests/lab/test_tables.py).
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from lab.compare import compare_report
from lab.compare.compare_report import machine_of, milliseconds, settings_of
from lab.faults import faults_report
from lab.faults.promises import FAULTS, STEPS, SUBJECTS
from lab.harness.command import RESULTS
from lab.harness.figures import Facts, figure
from lab.harness.processes import ROOT

_BLOCK = re.compile(r"(?ms)^(<!-- measured: ([\w-]+) -->\n)(.*?)^(<!-- end -->)$")

LADDER = {
    1: ("the mail server said 250", "the caller needs the result, and can wait"),
    2: ("a task was started", "it does not matter whether it happens"),
    3: ("the master holds it", "there is one machine, and a restart may lose what waits"),
    4: ("at least one worker was listening", "many programs should hear it now, and it is worthless later"),
    5: ("the job is in Redis", "a piece of work must be done by one worker: most background work"),
    6: ("the event is in the log", "several programs act on one event, or you want to replay it"),
}
"""What a 2xx means, and when to choose it."""

WORKER_KILLED = {1: "server-kill", 2: "server-kill"}  # there the web server does the worker's work

MATRIX = {
    "server-kill": "web server killed",
    "worker-kill": "worker killed",
    "worker-term": "SIGTERM to the worker",
    "worker-stop": "worker stopped for longer than a lease",
    "worker-second": "a second worker",
    "master-kill": "master killed",
    "all-term": "SIGTERM to all",
    "redis-kill": "Redis killed",
    "redis-tail": "and its last writes cut off",
    "smtp-kill": "mail server killed",
    "smtp-451": "it says 451",
    "smtp-hang": "it hangs",
    "smtp-lose-reply": "its 250 gets lost",
}


class NoSuchBlock(Exception):
    """A README has a block that nobody here knows."""


class NotMeasured(Exception):
    """A block shows what is not among the results."""


@cache
def results(name: str) -> dict[str, Any]:
    """Raises FileNotFoundError when there are none: `make NAME` makes them."""
    facts: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return facts


def cell(subject: str, fault: str) -> Facts | None:
    cells = (c for c in results("faults")["cells"] if (c["subject"], c["fault"]) == (subject, fault))
    return next(cells, None)


def measured_cell(subject: str, fault: str) -> Facts:
    """Raises NotMeasured."""
    if (found := cell(subject, fault)) is None or "lost" not in found:
        raise NotMeasured(f"{fault} of {subject}: make faults")
    return found


def ladder() -> Iterator[str]:
    yield "| | what a 2xx means | HTTP answer | in the inbox | lost when the worker was killed | choose it when |"
    yield "|---|---|---|---|---|---|"
    lines = {int(line["strategy"][0]): line for line in results("compare")["strategies"]}
    for number, (means, choose) in LADDER.items():
        name, folder = SUBJECTS[str(number)].title, lines[number]["strategy"]
        line, killed = lines[number], measured_cell(str(number), WORKER_KILLED.get(number, "worker-kill"))
        times = (f"{milliseconds(line[f'{kind}_p50_ms'])} ms" for kind in ("answer", "inbox"))
        lost = f"**{killed['lost']}** of {killed['acknowledged']:,}, in {killed['injections']} kills"
        yield f"| [{name}]({folder}/README.md) | {means} | {' | '.join(times)} | {lost} | {choose} |"
    yield ""
    settings = results("faults")["settings"]
    yield (
        f"(Medians, by `make compare` with {settings_of(results('compare'))}; losses by `make faults` with "
        f"KILLS={settings['KILLS']} and SEED={settings['SEED']}, emails asked for at {settings['RATE']:g} a second, "
        "Redis with `appendfsync always`. Strategies 1 and 2 have no worker: there it is the web server.)"
    )


def compared() -> Iterator[str]:
    facts = results("compare")
    yield "![How long until the HTTP answer, and until the email is in the inbox](compare.svg)"
    yield ""
    yield from compare_report.table(facts)
    yield ""
    for remark in facts["remarks"]:
        yield f"- {remark}"
    yield f"- {machine_of(facts)}"


def matrix() -> Iterator[str]:
    """Lost and twice, of each subject under the faults that tell them apart."""
    facts = results("faults")
    subjects = list(dict.fromkeys(cell["subject"] for cell in facts["cells"]))
    yield "| lost / twice | " + " | ".join(SUBJECTS[subject].title for subject in subjects) + " |"
    yield "|---" * (len(subjects) + 1) + "|"
    for fault, words in MATRIX.items():
        found = [cell(subject, fault) for subject in subjects]
        yield f"| {words} | {' | '.join(map(lost_and_twice, found))} |"
    yield ""
    totals, settings = facts["totals"], facts["settings"]
    broken = sum(bool(one["broken"]) for one in facts["cells"])
    yield (
        f"{totals['faults']:,} faults, {totals['acknowledged']:,} emails accepted, {totals['ok']:,} delivered, "
        f"{totals['failed']:,} given up by id, {totals['lost']:,} lost; {totals['duplicated']:,} surplus copies; "
        f"{totals['unexpected']:,} not asked for. In {len(facts['cells'])} cells {broken or 'no'} promise"
        f"{'s were' if broken > 1 else ' was'} broken (SEED={settings['SEED']}; {machine_of(facts)}). "
        "All of it: [`faults.md`](faults.md)."
    )


def lost_and_twice(cell: Facts | None) -> str:
    if cell is None:
        return ""
    if "lost" not in cell:
        return "not done here" if "skipped" in cell else "not measured"
    lost = f"**{cell['lost']}**" if cell["lost"] else "0"
    return f"{lost} / {cell['duplicated']}" + (" BROKEN" if cell["broken"] else "")


def measured_faults(*subjects: str) -> Iterator[str]:
    """A chapter's own cells."""
    facts = results("faults")
    settings = facts["settings"]
    yield "<details>"
    yield (
        f"<summary>Promised and measured: each fault {settings['KILLS']} times, at {settings['RATE']:g} emails a "
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
    """The steps of a chapter: lost / twice for each fault, one row a step."""
    facts = results("steps")
    cells = {(cell["subject"], cell["fault"]): cell for cell in facts["cells"]}
    done = ("worker-kill", "worker-term", "worker-stop", "worker-second")
    yield "| lost / twice | " + " | ".join(FAULTS[fault] for fault in done) + " |"
    yield "|---|" + "---|" * len(done)
    for name, step in STEPS.items():
        if step.number == number:
            yield (
                f"| `{step.settings['STEP']}` | "
                + " | ".join(lost_and_twice(cells.get((name, f))) for f in done)
                + " |"
            )
    settings = facts["settings"]
    yield ""
    yield (
        f"(`make faults STEPS=1`: each fault {settings['KILLS']} times, at {settings['RATE']:g} emails a second, "
        f"SEED={settings['SEED']}; {machine_of(facts)}. An empty field was not tried.)"
    )


STAIRS = {
    "5-pop": "takes the job out of the queue, then sends",
    "5-move": "moves the job to a list of its own, sends, then removes it",
    "5-lease": "claims the job with a token and a deadline, sends, then acknowledges",
    "6-cursor_first": "moves the cursor, then sends",
    "6-commit_after": "sends, then moves the cursor",
    "6-group": "reads as a member of a consumer group, sends, then acknowledges",
}
"""What the worker of each step does."""


def staircase() -> Iterator[str]:
    """What each step loses when its worker is killed, and how often a second worker sends an email again."""
    facts = results("steps")
    cells = {(cell["subject"], cell["fault"]): cell for cell in facts["cells"]}
    yield "| step | its worker | lost, worker killed | sent twice, two workers |"
    yield "|---|---|---|---|"
    for name, words in STAIRS.items():
        killed, second = cells[name, "worker-kill"], cells.get((name, "worker-second"))
        lost = f"**{killed['lost']}** of {killed['acknowledged']:,}, in {killed['injections']} kills"
        twice = "" if second is None else f"{second['duplicated']:,} of {second['acknowledged']:,}"
        yield f"| {STEPS[name].number} `{STEPS[name].settings['STEP']}` | {words} | {lost} | {twice} |"
    yield ""
    yield "(`make faults STEPS=1`. An empty field was not tried.)"


def bench() -> Iterator[str]:
    yield "| | measured | reference, in the same run | ratio | target |"
    yield "|---|---|---|---|---|"
    for row in results("bench")["rows"]:
        measured, reference = (figure(row[side]["median"]) for side in ("measured", "reference"))
        target = row["target"] if row["target"] != "none" else ""
        missed = "" if row["met"] else " **missed**"
        yield (
            f"| {row['name']} | {measured} {row['unit']} | {reference} ({row['against']}) "
            f"| {row['ratio']['median']:.2f} | {target}{missed} |"
        )
    yield ""
    yield f"({machine_of(results('bench'))}. Medians; the rounds are in [`bench.json`](bench.json).)"


def row(name: str) -> Facts:
    """Raises NotMeasured."""
    for found in results("bench")["rows"]:
        if found["name"] == name:
            return cast(Facts, found)
    raise NotMeasured(f"{name}: make bench")


def costs_of_the_queue() -> Iterator[str]:
    yield "| | 4, pub/sub | 5, the queue |"
    yield "|---|---|---|"
    for words, what, side in (
        ("accepting, as a fraction of a bare aiohttp handler", "accepts", "ratio"),
        ("delivering to a fast mail server, emails a second", "delivers", "measured"),
        ("from idle, from the request to the email (median, ms)", "from idle", "measured"),
    ):
        figures = [figure(row(f"strategy {number} {what}")[side]["median"]) for number in (4, 5)]
        yield f"| {words} | {' | '.join(figures)} |"
    waiting = row("queue, a waiting job")
    more = waiting["measured"]["median"] - waiting["reference"]["median"]
    yield f"| memory of Redis for a waiting email | nothing: it is in a worker | its JSON, and {more:.0f} bytes |"


def costs_of_the_log() -> Iterator[str]:
    yield "| | partitions and Lua | Streams |"
    yield "|---|---|---|"
    for words, name in (
        ("appends a second, one process, batches of 1,000", "the log appends"),
        ("claims and commits a second", "the log claims and commits"),
        ("bytes of memory for an event", "the log in memory"),
    ):
        found = row(name)
        yield f"| {words} | {figure(found['measured']['median'])} | {figure(found['reference']['median'])} |"


BLOCKS: dict[str, Callable[[], Iterator[str]]] = {
    "ladder": ladder,
    "staircase": staircase,
    "compare": compared,
    "matrix": matrix,
    "bench": bench,
    "faults-1": partial(measured_faults, "1"),
    "faults-2": partial(measured_faults, "2"),
    "faults-3": partial(measured_faults, "3"),
    "faults-4": partial(measured_faults, "4", "4w"),
    "faults-5": partial(measured_faults, "5"),
    "faults-6": partial(measured_faults, "6", "6s", "6j"),
    "steps-5": partial(measured_steps, 5),
    "steps-6": partial(measured_steps, 6),
    "costs-5": costs_of_the_queue,
    "costs-6": costs_of_the_log,
}


def render(text: str) -> str:
    """The text of a README with its blocks written. Raises NoSuchBlock."""

    def write(block: re.Match[str]) -> str:
        if block[2] not in BLOCKS:
            raise NoSuchBlock(block[2])
        return "".join([block[1], *[f"{line}\n" for line in BLOCKS[block[2]]()], block[4]])

    return _BLOCK.sub(write, text)


def readmes() -> list[Path]:
    return [ROOT / "README.md", *sorted(ROOT.glob("[1-9]_*/README.md")), RESULTS / "README.md"]


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


if __name__ == "__main__":
    main()
