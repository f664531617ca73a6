"""The results of `make compare`, as a table for a README and as a picture."""

import io
from collections.abc import Sequence
from typing import Any

from lab.faults.promises import SUBJECTS
from lab.harness.figures import Facts

# Two of the colours of Okabe and Ito, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color/). In
# print one is dark and one is light, and the shapes differ too. The background is always white.
ANSWER, INBOX, INK, FAINT = "#0072B2", "#E69F00", "#222222", "#c8c8c8"

PERCENTS = {"answer": (50, 95, 99), "inbox": (50, 99)}


def markdown(facts: dict[str, Any]) -> str:
    rate, clients = facts["settings"]["rate"], facts["settings"]["CLIENTS"]
    names = {line["strategy"] for line in facts["strategies"]}
    what = "engines" if names <= SUBJECTS.keys() else "steps" if any("-" in name for name in names) else "six"
    return "\n".join(
        [
            f"# The {what} side by side",
            "",
            f"`make compare` with {settings_of(facts)}: first {rate:g} emails per second, however many wait for their "
            f"answers; then the same number as fast as {clients} clients can, each of which waits for its answer.",
            "",
            *table(facts),
            "",
            *[f"- {remark}" for remark in facts["remarks"]],
            "- " + machine_of(facts),
            "",
        ]
    )


def table(facts: dict[str, Any]) -> list[str]:
    return [
        "| | HTTP answer p50 / p95 / p99 | in the inbox p50 / p99 | emails/s | lost | twice | processes | memory |",
        "|---|---|---|---|---|---|---|---|",
        *map(row, facts["strategies"]),
    ]


def row(line: Facts) -> str:
    lost, twice = (f"**{line[name]}**" if line[name] else "0" for name in ("lost", "duplicated"))
    return (
        f"| {title_of(line)} | {times_of(line, 'answer')} ms | {times_of(line, 'inbox')} ms "
        f"| {line['emails_per_second']:,.0f} | {lost} | {twice} | {line['processes']} | {sizes_of(line)} MiB |"
    )


def title_of(line: Facts) -> str:
    """`1_foreground` -> 1 foreground, `5-pop` -> 5 pop, `6-commit_after` -> 6 commit after, `5r` -> 5 on RabbitMQ."""
    name = str(line["strategy"])
    return SUBJECTS[name].title if name in SUBJECTS else name.replace("_", " ").replace("-", " ")


def times_of(line: Facts, kind: str) -> str:
    """In ms."""
    return " / ".join(milliseconds(line[f"{kind}_p{percent}_ms"]) for percent in PERCENTS[kind])


def sizes_of(line: Facts) -> str:
    """In MiB."""
    return ", ".join(f"{role} {size / 2**20:.0f}" for role, size in line["memory"].items())


def milliseconds(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def machine_of(facts: dict[str, Any]) -> str:
    machine = facts["machine"]
    warning = f"; {machine['warning']}" if machine.get("warning") else ""
    return "{cpu}, {cores} cores, {kernel}, {python}, {date}".format(**machine) + warning


def settings_of(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name}={facts['settings'][name]}" for name in ("N", "CLIENTS", "LATENCY_MS"))


def picture(facts: dict[str, Any]) -> str:
    """An SVG: for each strategy a dot at the median and a line to the 99th percentile, for both times."""
    import matplotlib as mpl  # imported here, because that takes a second and only this function needs it

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "six", "font.size": 11, "axes.edgecolor": FAINT, "text.color": INK})
    from matplotlib import pyplot

    lines = [line for line in facts["strategies"] if line["inbox_p50_ms"] is not None]
    figure, axes = pyplot.subplots(figsize=(8.4, 1.5 + 0.62 * len(lines)), layout="constrained", facecolor="white")
    names = [title_of(line) for line in lines]
    for kind, colour, marker, shift in (("answer", ANSWER, "o", -0.15), ("inbox", INBOX, "D", 0.15)):
        medians = [line[f"{kind}_p50_ms"] for line in lines]
        high = [line[f"{kind}_p99_ms"] for line in lines]
        places = [place + shift for place in range(len(lines))]
        axes.hlines(places, medians, high, color=colour, linewidth=2.5)
        axes.plot(high, places, "|", color=colour, markersize=11, markeredgewidth=2.5)
        axes.plot(
            medians, places, marker, color=colour, markersize=9, markeredgecolor=INK, label=LABELS[kind], linestyle=""
        )
        for median, end, place in zip(medians, high, places, strict=True):
            text = f"{milliseconds(median)} … {milliseconds(end)}"
            label = axes.annotate(text, (end, place), xytext=(9, 0), textcoords="offset points", va="center", size=9.5)
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # over the grid
    axes.set_xscale("log")
    axes.set_xlim(limits([line[f"{kind}_p{p}_ms"] for line in lines for kind in LABELS for p in (50, 99)]))
    axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g} ms"))
    axes.set_yticks(range(len(lines)), names)
    axes.set_ylim(max(1, len(lines)) - 0.5, -0.5)
    axes.grid(axis="x", which="major", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0, which="both")
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, handletextpad=0.3)
    figure.supxlabel(NUMBERS, x=0.01, ha="left", size=9.5)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Title": title(facts)})
    pyplot.close(figure)
    return "\n".join(text.rstrip() for text in file.getvalue().splitlines()) + "\n"


LABELS = {"answer": "the HTTP answer", "inbox": "the email is in the inbox"}
NUMBERS = "the numbers: median (the mark) … 99th percentile (the end of its line), in ms"


def title(facts: dict[str, Any]) -> str:
    return f"How long until the HTTP answer, and until the email is in the inbox; {settings_of(facts)}"


def limits(values: Sequence[float]) -> tuple[float, float]:
    """The limits of the x axis, with room for the two numbers at the right."""
    return min(values, default=1.0) / 1.6, max(values, default=1.0) * 3.2
