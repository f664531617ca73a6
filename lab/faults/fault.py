"""What a fault is to the code that injects it."""

import random
from collections.abc import Callable

from lab.faults.running import Running
from lab.harness.account import Injection
from lab.harness.processes import ChildFailed

Fault = Callable[[Running, random.Random], Injection]
"""Injects the fault into the running strategy and returns when the fault is over, with the time it lasted.

It does not wait for processes that `make run-N` restarts by itself. Raises ChildFailed or CannotDo.
"""


class NoEffect(ChildFailed):
    """A fault was injected and had no effect, so there is nothing to measure."""
