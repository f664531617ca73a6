"""The modules of the chapters, whose folders begin with a digit, so that no import statement can name them."""

import importlib
from typing import Any


def chapter_module(name: str) -> Any:
    """Import `1_foreground`, `5_remote_queue.steps.pop` and the like."""
    return importlib.import_module(name)
