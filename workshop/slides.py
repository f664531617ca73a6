"""`make slides`: the slides of workshop/README.md as one HTML file that needs no network, and can be printed.

A slide stands between `<!-- slide: TITLE -->` and `<!-- end -->`. In it, `<!-- figures: NAME -->` is replaced by
a table from results/: `answers`, `steps`, or the name of a fault.
"""

import html
import json
import re
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from lab.harness.processes import ROOT
from workshop.trial import on_path

PLAN = ROOT / "workshop" / "README.md"
OUTPUT = ROOT / "workshop" / "slides.html"
NAMES = {"1": "foreground", "2": "parallel", "3": "local messages", "4": "remote messages", "5": "remote queue"}
NAMES |= {"6": "event bus"}
FAULTS = {
    "server-kill": "SIGKILL to the web server",
    "worker-kill": "SIGKILL to the worker",
    "worker-second": "a second worker runs for a while",
}

_SLIDE = re.compile(r"<!-- slide: (.+?) -->\n(.*?)<!-- end -->", re.DOTALL)
_FIGURES = re.compile(r"<!-- figures: (\S+) -->")


def slides(text: str) -> list[tuple[str, str]]:
    """The title and the Markdown of each slide."""
    return [(title, _FIGURES.sub(lambda found: f"\n{figures(found[1])}", body)) for title, body in _SLIDE.findall(text)]


def figures(name: str) -> str:
    """A table from results/, in Markdown."""
    if name == "answers":
        return answers(results("compare"))
    if name == "steps":
        cells = [cell for cell in results("steps")["cells"] if cell["subject"].startswith("5-")]
        return losses(cells, "worker-kill", "SIGKILL to the worker", "make faults STEPS=1")
    return losses(results("faults")["cells"], name, FAULTS[name], "make faults")


def answers(compared: dict[str, Any]) -> str:
    rows = [
        f"| {one['strategy'].replace('_', ' ')} | {one['answer_p50_ms']:.1f} ms | {one['answer_p99_ms']:.1f} ms |"
        for one in compared["strategies"]
    ]
    latency = compared["settings"]["LATENCY_MS"]
    return table("| strategy | answer, p50 | p99 |", rows, f"make compare, the mail server takes {latency} ms")


def losses(cells: list[dict[str, Any]], fault: str, title: str, source: str) -> str:
    rows = [
        f"| {subject(cell['subject'])} | {cell['lost']} of {cell['acknowledged']} | {cell['duplicated']} |"
        for cell in cells
        if cell["fault"] == fault and subject(cell["subject"])
    ]
    return table(f"| {title} | lost | twice |", rows, f"{source}, {cells[0]['injections']} times")


def subject(name: str) -> str:
    """The words for a strategy or a step; "" for one that no slide shows."""
    number, _, step = name.partition("-")
    return f"`{step}`" if step else f"{number} {NAMES[number]}" if number in NAMES else ""


def table(head: str, rows: list[str], source: str) -> str:
    rule = "|" + "---|" * (head.count("|") - 1)
    return "\n".join([head, rule, *rows, "", f"*Measured: {source}*", ""])


def results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "results" / f"{name}.json").read_text())
    return found


def deck(text: str) -> str:
    """The HTML."""
    render = MarkdownIt("commonmark", {"html": False}).enable("table").render
    sections = [
        f'<section id="s{number}"><h1>{html.escape(title)}</h1>\n{render(body)}<footer>{number}</footer></section>'
        for number, (title, body) in enumerate(slides(text), 1)
    ]
    page = Path(__file__).with_name("slides_page.html").read_text()
    return page.replace("SLIDES", "\n".join(sections))


def main() -> None:
    OUTPUT.write_text(deck(PLAN.read_text()))
    print(f"wrote {on_path(OUTPUT)}: {len(slides(PLAN.read_text()))} slides")


if __name__ == "__main__":
    main()
