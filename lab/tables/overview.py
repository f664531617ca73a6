"""The tables of all six strategies side by side."""

from collections.abc import Iterator

from lab.compare import compare_report
from lab.compare.compare_report import machine_of, milliseconds, settings_of
from lab.faults.promises import SUBJECTS
from lab.harness.figures import Facts, format_number
from lab.tables.saved import cell, measured_cell, results

LADDER = {
    1: ("the mail server sent its 250", "the caller needs the result, and can wait"),
    2: ("a task was started", "it does not matter whether it happens"),
    3: ("the master holds the email", "there is one machine, and a restart may lose waiting emails"),
    4: ("at least one worker was subscribed", "many programs should get it now, and it is worthless later"),
    5: ("the job is in Redis", "a piece of work must be done by one worker: most background work"),
    6: ("the event is in the log", "several programs act on one event, or you want to replay it"),
}
"""What a 2xx means, and when to choose the strategy."""

WORKER_KILLED = {1: "server-kill", 2: "server-kill"}  # there the web server does the worker's work

MATRIX = {
    "server-kill": "web server killed",
    "worker-kill": "worker killed",
    "worker-term": "SIGTERM to the worker",
    "worker-stop": "worker stopped for longer than a lease",
    "worker-second": "a second worker",
    "master-kill": "master killed",
    "all-term": "SIGTERM to all processes",
    "redis-kill": "Redis killed",
    "redis-tail": "Redis killed, its last writes cut off",
    "smtp-kill": "mail server killed",
    "smtp-451": "mail server answers 451",
    "smtp-hang": "mail server hangs",
    "smtp-lose-reply": "mail server's 250 is lost",
}


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
        f"KILLS={settings['KILLS']} and SEED={settings['SEED']}, {settings['RATE']:g} emails per second, "
        "Redis with `appendfsync always`. Strategies 1 and 2 have no worker, so their web server was killed.)"
    )


def compared(name: str) -> Iterator[str]:
    facts = results(name)
    yield f"![How long until the HTTP answer, and until the email is in the inbox]({name}.svg)"
    yield ""
    yield from compare_report.table(facts)
    yield ""
    for remark in facts["remarks"]:
        yield f"- {remark}"
    yield f"- {machine_of(facts)}"


def matrix() -> Iterator[str]:
    """Lost and twice, for each strategy under the faults that show the differences best."""
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
        f"{totals['faults']:,} faults; {totals['acknowledged']:,} emails accepted, {totals['ok']:,} delivered, "
        f"{totals['failed']:,} given up, {totals['lost']:,} lost; {totals['duplicated']:,} duplicates; "
        f"{totals['unexpected']:,} emails without a request. In {len(facts['cells'])} cells {broken or 'no'} promise"
        f"{'s were' if broken > 1 else ' was'} broken (SEED={settings['SEED']}; {machine_of(facts)}). "
        "All cells are in [`faults.md`](faults.md)."
    )


def lost_and_twice(cell: Facts | None) -> str:
    if cell is None:
        return ""
    if "lost" not in cell:
        return "not measured"
    lost = f"**{cell['lost']}**" if cell["lost"] else "0"
    return f"{lost} / {cell['duplicated']}" + (" BROKEN" if cell["broken"] else "")


def bench() -> Iterator[str]:
    yield "| | measured | reference, in the same run | ratio | target |"
    yield "|---|---|---|---|---|"
    for row in results("bench")["rows"]:
        measured, reference = (format_number(row[side]["median"]) for side in ("measured", "reference"))
        target = row["target"] if row["target"] != "none" else ""
        missed = "" if row["met"] else " **missed**"
        yield (
            f"| {row['name']} | {measured} {row['unit']} | {reference} ({row['against']}) "
            f"| {row['ratio']['median']:.2f} | {target}{missed} |"
        )
    yield ""
    yield f"({machine_of(results('bench'))}. Medians; all rounds are in [`bench.json`](bench.json).)"


def parts() -> Iterator[str]:
    """Where the time of one request or email goes. Results of an earlier version of `make bench` have no parts."""
    facts = results("bench")
    breakdowns = facts.get("parts", [])
    if not breakdowns:
        yield "(Not measured yet: `make bench`.)"
        return
    for breakdown in breakdowns:
        names, times = breakdown["parts"].keys(), [*breakdown["parts"].values()]
        yield f"| {breakdown['name']} | {' | '.join(names)} | in all |"
        yield "|---" * (len(times) + 2) + "|"
        yield f"| CPU µs | {' | '.join(f'{time:.1f}' for time in (*times, sum(times)))} |"
        yield ""
    yield f"({machine_of(facts)}. Medians; see [`lab/bench/parts.py`](../lab/bench/parts.py).)"
