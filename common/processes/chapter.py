"""Imports the modules of the chapters. An import statement cannot name them, as their folders begin with a digit."""

import importlib
from typing import Any


def chapter_module(name: str) -> Any:
    """Import a module such as `1_foreground` or `5_remote_queue.steps.pop`."""
    return importlib.import_module(name)
