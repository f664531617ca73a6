"""The tables that compare the engines of chapter 5, and those of chapter 6."""

from collections.abc import Iterator

from lab.compare.compare_report import machine_of, milliseconds
from lab.faults.promises import SUBJECTS
from lab.harness.figures import format_number
from lab.tables.overview import compared
from lab.tables.saved import NotMeasured, bench_row, is_saved, results

ENGINES = {
    5: {"5": "the queue on Redis", "5r": "RabbitMQ"},
    6: {"6": "partitions and Lua", "6s": "Streams", "6j": "JetStream"},
}
"""The subjects of `make faults`, and what the tables call them."""

FIGURES = {
    "delivers": "emails delivered to a fast mail server, per second",
    "accepts": "emails accepted per second",
    "from idle": "from idle, from the request to the mail server (median, ms)",
    "costs": "CPU time for an email, of all processes (µs)",
    "a waiting email, memory": "memory of the broker for a waiting email (bytes)",
    "a waiting email, disk": "disk space of the broker for a waiting email (bytes)",
    "code": "lines of code, without pages",
}
"""The rows of `make bench`, and what the tables call them."""


def engines(number: int) -> Iterator[str]:
    columns = ENGINES[number]
    yield "| | " + " | ".join(columns.values()) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    rows = {
        "`make faults`: faults, emails accepted": faults_and_emails,
        "lost / twice / broken promises": losses,
        "HTTP answer / in the inbox, at a steady rate (medians, ms)": compared_times,
    }
    for words, figure in rows.items():
        yield f"| {words} | {' | '.join(map(figure, columns))} |"
    for what, words in FIGURES.items():
        yield f"| {words} | {' | '.join(bench_figure(number, subject, what) for subject in columns)} |"
    yield ""
    yield (
        "(`make faults`, `make compare ENGINES=1` and `make bench BENCH_ONLY=engines`; "
        f"{machine_of(results('bench'))}. An empty field was not measured.)"
    )


def faults_and_emails(subject: str) -> str:
    cells = [cell for cell in results("faults")["cells"] if cell["subject"] == subject and "lost" in cell]
    injected = sum(cell["injections"] for cell in cells if cell["fault"] != "none")
    return f"{injected:,}, {sum(cell['acknowledged'] for cell in cells):,}" if cells else ""


def losses(subject: str) -> str:
    cells = [cell for cell in results("faults")["cells"] if cell["subject"] == subject and "lost" in cell]
    numbers = [sum(cell[name] for cell in cells) for name in ("lost", "duplicated")]
    return " / ".join(map(str, [*numbers, sum(bool(cell["broken"]) for cell in cells)])) if cells else ""


def compared_times(subject: str) -> str:
    if not is_saved("compare_engines"):
        return ""
    for line in results("compare_engines")["strategies"]:
        if line["strategy"] == subject:
            return " / ".join(milliseconds(line[f"{kind}_p50_ms"]) for kind in ("answer", "inbox"))
    return ""


def bench_figure(number: int, subject: str, what: str) -> str:
    """A chapter's own engine is the reference of each other one."""
    own, *others = ENGINES[number]
    for other in others if subject == own else [subject]:
        try:
            row = bench_row(f"{SUBJECTS[other].title}, {what}")
        except NotMeasured:
            continue
        return format_number(row["reference" if subject == own else "measured"]["median"])
    return ""


def compared_engines() -> Iterator[str]:
    if is_saved("compare_engines"):
        yield from compared("compare_engines")
    else:
        yield "(Not measured yet: `make compare ENGINES=1`.)"
