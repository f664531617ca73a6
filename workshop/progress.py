"""What the learner has solved, skipped and predicted. It is kept in workshop/my/progress.json."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from workshop.course import Exercise


@dataclass
class Progress:
    solved: list[str] = field(default_factory=list)
    """Names of exercises."""
    skipped: list[str] = field(default_factory=list)
    predictions: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Self:
        path = folder / "progress.json"
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "progress.json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    def done(self, exercise: Exercise) -> bool:
        return exercise.name in self.solved or exercise.name in self.skipped

    def mark(self, exercise: Exercise, *, solved: bool) -> None:
        for names in (self.solved, self.skipped):
            if exercise.name in names:
                names.remove(exercise.name)
        (self.solved if solved else self.skipped).append(exercise.name)

    def forget(self, exercise: Exercise) -> None:
        for names in (self.solved, self.skipped):
            if exercise.name in names:
                names.remove(exercise.name)
        self.predictions.pop(exercise.name, None)
