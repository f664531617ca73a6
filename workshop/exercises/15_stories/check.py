"""Looks the reasons up in results/faults.json: what this repository has measured."""

import json
from dataclasses import dataclass
from typing import Any

from lab.harness.processes import ROOT
from workshop.answers import FILE, given, read_answers
from workshop.program import Failed
from workshop.trial import Trial

FAULTS = ROOT / "results" / "faults.json"
LOST, REACHED = "lost", "reached"


@dataclass(frozen=True)
class Story:
    name: str
    accepted: tuple[int, ...]
    """Strategies that do what the story asks for."""
    colleague: int
    """What the colleague proposes."""
    figure: str = LOST
    """What the defence is about."""
    why_not: str = ""
    """For a strategy that is not accepted."""


STORIES = (
    Story("reset", (1,), 2, why_not="the visitor must learn at once whether the mail server has accepted the email"),
    Story("receipt", (5, 6), 4, why_not="receipts are sent from several machines, and none may be lost"),
    Story("typing", (4,), 5, REACHED, "each of the servers must get each notice, and an old one is worthless"),
    Story("newsletter", (3,), 2, why_not="there is one machine, no Redis, and a worker that may crash"),
    Story("order", (6,), 4, why_not="several programs react to one order, and new ones want to see the old orders"),
)


async def check(trial: Trial) -> str:
    answers, cells = read_answers(trial.folder), measured()
    for story in STORIES:
        answer = answers.get(story.name, {})
        if not isinstance(answer, dict):
            raise Failed(f"a section [{story.name}] with strategy and fault", f"it is {answer!r}", FILE)
        strategy, fault = (given(answer, name, story.name) for name in ("strategy", "fault"))
        if strategy not in story.accepted:
            happened = f"strategy {strategy!r} does not fit: {story.why_not}"
            raise Failed(f"a strategy for `{story.name}` that does what the story asks for", happened, TABLE)
        defend(story, strategy, fault, cells)
    return f"you have chosen and defended {len(STORIES)} strategies"


TABLE = "6_event_bus/README.md, When to choose which"


def measured() -> dict[tuple[str, str], dict[str, Any]]:
    """What was measured, by strategy and fault."""
    return {(cell["subject"], cell["fault"]): cell for cell in json.loads(FAULTS.read_text())["cells"]}


def defend(story: Story, strategy: int, fault: str, cells: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Raises Failed unless this fault shows the difference between the strategy and the colleague's."""
    names = sorted({name for _, name in cells})
    if fault not in names:
        raise Failed(f"a fault in `{story.name}` from this list: {', '.join(names)}", f"it is {fault}", FILE)
    yours, theirs = cells.get((str(strategy), fault)), cells.get((str(story.colleague), fault))
    if yours is None or theirs is None:
        missing = strategy if yours is None else story.colleague
        expected = f"a fault for `{story.name}` that was measured for both strategies"
        raise Failed(expected, f"{fault} was not measured for strategy {missing}", MEASURED)
    if story.figure == REACHED:
        convincing, what = yours["duplicated"] > 0 and theirs["duplicated"] == 0, "emails that arrived twice"
        figures = (yours["duplicated"], theirs["duplicated"])
    else:
        convincing, what = yours["lost"] == 0 and theirs["lost"] > 0, "lost emails"
        figures = (yours["lost"], theirs["lost"])
    if not convincing:
        happened = (
            f"with {fault}, strategy {strategy} has {figures[0]} {what}, and strategy {story.colleague} {figures[1]}"
        )
        raise Failed(f"a fault for `{story.name}` that shows why your strategy is better", happened, MEASURED)


MEASURED = "results/faults.md"
