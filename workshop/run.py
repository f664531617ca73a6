"""`make exercise`: show the next exercise, and check the learner's copy each time a file of it is saved.

N=7 chooses an exercise. HINT=1 to 3 shows a hint, SKIP=1 skips the exercise, RESET=1 puts the starting point back,
SOLUTION=1 shows how our solution differs from the learner's (after solving or skipping). CHECK=1 checks once, without
watching: exit status 0 if it is solved, 1 if not. PREDICT=12 answers the question in advance. SEED=7 moves the faults.
"""

import asyncio
import difflib
import os
import shutil
import signal
import sys
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from common.processes.terminal import own_terminal
from common.settings import exit_with_usage_error
from lab.harness.command import end_on_signals
from workshop.bench import Bench
from workshop.course import FOLDER, HINTS, Exercise, exercises
from workshop.program import Failed
from workshop.progress import Progress
from workshop.trial import Trial, on_path

MY = Path(os.environ.get("WORKSHOP_DIR") or FOLDER / "my")
"""The learner's folder. Tests set WORKSHOP_DIR."""
LOOK_SECONDS = 0.3
CHECK_SECONDS = 120.0  # the longest check; most take a few seconds
SEED = 2016
CTRL_C = 128 + signal.SIGINT  # the exit status after it; here it is the usual way to leave

console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def chosen(progress: Progress) -> Exercise | None:
    """The exercise that N names, or the next one; None when all are done. A bad N ends with exit status 2."""
    text = os.environ.get("N", "")
    if not text:
        return next((exercise for exercise in exercises() if not progress.done(exercise)), None)
    if not text.isdigit() or not 1 <= int(text) <= len(exercises()):
        exit_with_usage_error(f"N: there are the exercises 1 to {len(exercises())}")
    return exercises()[int(text) - 1]


def number_in(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        exit_with_usage_error(f"{name}: {text} is not a number")


def show(exercise: Exercise, folder: Path) -> None:
    print_text(exercise.text)
    console.print(f"Exercise {exercise.number} of {len(exercises())}; read {exercise.chapter}/README.md before.")
    files = ", ".join(on_path(folder / name) for name in exercise.files())
    console.print(
        f"Your files: {files}\nAbout {exercise.minutes} minutes. A hint: make exercise N={exercise.number} HINT=1"
    )


def print_text(text: str) -> None:
    """Format Markdown for a terminal."""
    if sys.stdout.isatty():
        console.print(Markdown(text))
    else:
        print(text)


def show_hint(exercise: Exercise) -> None:
    text = os.environ["HINT"]
    if text not in map(str, range(1, HINTS + 1)):
        exit_with_usage_error(f"HINT: choose from 1 to {HINTS}")
    print_text(exercise.hint(int(text)))


def show_solution(exercise: Exercise, folder: Path, progress: Progress) -> None:
    if not progress.done(exercise):
        n = exercise.number
        exit_with_usage_error(f"SOLUTION: solve exercise {n} first, or skip it: make exercise N={n} SKIP=1")
    for name in exercise.files():
        yours, ours = folder / name, exercise.solution / name
        if not ours.exists():
            continue  # given, and not to be changed
        before = yours.read_text().splitlines() if yours.exists() else []
        for line in difflib.unified_diff(
            before, ours.read_text().splitlines(), on_path(yours), on_path(ours), lineterm=""
        ):
            print(line)


def ask_prediction(exercise: Exercise, progress: Progress) -> None:
    """Ask for the number that the learner expects, once. Without a terminal there is no question."""
    if not exercise.question or exercise.name in progress.predictions:
        return
    console.print(f"\n[bold]Predict first:[/bold] {exercise.question}")
    if text := os.environ.get("PREDICT", ""):
        number = number_in("PREDICT", text)
    elif sys.stdin.isatty():
        number = asked_number(exercise.unit)
    else:
        return
    progress.predictions[exercise.name] = number
    progress.write(MY)


def asked_number(unit: str) -> float:
    """Ask until the answer is a number. The unit may follow it."""
    while True:
        text = input(f"your number ({unit}): ").strip().removesuffix(unit)
        try:
            return float(text)
        except ValueError:
            console.print("Type a number, such as 12.")


async def check(exercise: Exercise, folder: Path, bench: Bench, progress: Progress) -> bool:
    """Check once, and print what was seen. Returns whether it is solved."""
    seed = int(number_in("SEED", os.environ.get("SEED") or str(SEED)))
    measured: float | None = None
    try:
        async with asyncio.timeout(CHECK_SECONDS), Trial(folder, bench, seed) as trial:
            seen = await exercise.module.check(trial)
            measured = trial.measured
    except TimeoutError:
        console.print(f"[red]not solved[/red]: the check was stopped after {CHECK_SECONDS:g} s")
        return False
    except Failed as failed:
        console.print("[red]not solved[/red]")
        console.print(str(failed), markup=False)
        console.print(f"(SEED={seed}; a hint: make exercise N={exercise.number} HINT=1)", markup=False)
        measured = trial.measured
        return False
    finally:
        show_prediction(exercise, folder, progress, measured)
    console.print("[green]solved[/green]: ", end="")
    console.print(seen, markup=False)
    return True


def show_prediction(exercise: Exercise, folder: Path, progress: Progress, measured: float | None) -> None:
    predicted = progress.predictions.get(exercise.name)
    if exercise.question and measured is not None:
        yours = f"you predicted {predicted:g}, " if predicted is not None else ""
        whose = "with your changes" if exercise.is_changed_in(folder) else "with the starting point"
        console.print(f"{yours}measured {measured:g} {exercise.unit}, {whose}", markup=False)


def saved(folder: Path) -> dict[str, float]:
    return {path.name: path.stat().st_mtime for path in folder.iterdir() if path.is_file()}


async def work(exercise: Exercise, folder: Path, progress: Progress) -> int:
    """Check, and watch unless CHECK is set. Returns the exit status."""
    watching = not os.environ.get("CHECK") and sys.stdin.isatty()
    with Bench() as bench:
        async with AsyncExitStack() as stack:
            if watching and (stage := getattr(exercise.module, "stage", None)):
                console.print(await stack.enter_async_context(stage(MY)), markup=False)
            while True:
                before = saved(folder)
                console.print(f"\nchecking, {datetime.now():%H:%M:%S} …")
                if await check(exercise, folder, bench, progress):
                    progress.mark(exercise, solved=True)
                    progress.write(MY)
                    say_what_next(exercise, progress)
                    return 0
                if not watching:
                    return 1
                console.print(f"Save a file in {on_path(folder)} to check again; Ctrl-C to stop.")
                while saved(folder) == before:  # noqa: ASYNC110  the learner's editor sends no event
                    await asyncio.sleep(LOOK_SECONDS)


def say_what_next(exercise: Exercise, progress: Progress) -> None:
    left = [other for other in exercises() if not progress.done(other)]
    console.print(f"Compare with our solution: make exercise N={exercise.number} SOLUTION=1")
    if left:
        console.print(f"Next: make exercise (number {left[0].number}: {left[0].title})")
    else:
        console.print("That was the last one.")


def main() -> int:
    progress = Progress.read(MY)
    exercise = chosen(progress)
    if exercise is None:
        console.print(f"All {len(exercises())} exercises are done. Choose one with N=1 to N={len(exercises())}.")
        return 0
    folder = MY / exercise.name
    if os.environ.get("RESET"):
        shutil.rmtree(folder, ignore_errors=True)
        progress.forget(exercise)
        progress.write(MY)
        console.print(f"{on_path(folder)} is the starting point again")
        exercise.copy_to(folder)
        return 0
    exercise.copy_to(folder)
    if os.environ.get("HINT"):
        show_hint(exercise)
        return 0
    if os.environ.get("SKIP"):
        progress.mark(exercise, solved=False)
        progress.write(MY)
        console.print(f"skipped number {exercise.number}")
        say_what_next(exercise, progress)
        return 0
    if os.environ.get("SOLUTION"):
        show_solution(exercise, folder, progress)
        return 0
    show(exercise, folder)
    try:
        ask_prediction(exercise, progress)
    except (KeyboardInterrupt, EOFError):  # Ctrl-C or Ctrl-D at the question
        print()
        return 0
    end_on_signals()
    with own_terminal():
        try:
            return asyncio.run(work(exercise, folder, progress))
        except SystemExit as end:
            return 0 if end.code == CTRL_C else 1


if __name__ == "__main__":
    sys.exit(main())
