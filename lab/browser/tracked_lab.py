"""A Lab whose children can be told to end while another thread waits for them to start."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.harness.processes import END_SECONDS, Child, Lab


class TrackedLab(Lab):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._children: list[Child] = []

    @contextmanager
    def child(
        self, command: list[str], name: str, alone: bool = False, seconds: float = END_SECONDS, /, **settings: object
    ) -> Iterator[Child]:
        with super().child(command, name, alone, seconds, **settings) as child:
            self._children.append(child)
            try:
                yield child
            finally:
                self._children.remove(child)

    def terminate(self, name: str) -> None:
        """Send SIGTERM to the children with this name."""
        for child in list(self._children):
            if child.name == name and child.process.poll() is None:
                child.process.terminate()
