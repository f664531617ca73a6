"""The multi-worker: how many jobs one process should run at a time, by the delay of its event loop.

Jobs that wait cost nothing, so more of them may run; jobs that compute make everything late, so fewer should. Nobody
need say beforehand of which kind they are.
"""

from dataclasses import dataclass

LOOK_SECONDS = 0.1  # between two decisions
IDLE_LOOKS = 50  # so often in a row most slots must be idle before some are given up


@dataclass
class Scaling:
    """Decides between `minimum` and `maximum` slots, so that the loop is no later than `max_delay` seconds."""

    minimum: int = 1
    maximum: int = 50
    max_delay: float = 0.01
    _idle: int = 0

    def decide(self, slots: int, busy: int, delay: float, *, more: bool) -> tuple[int, str]:
        """The number of slots from now on, and why; `more`: there may be jobs left for more slots.

        Grows by doubling, from 1 to 100 in under a second; gives way by a quarter at a time; takes its time when idle.
        """
        self._idle = self._idle + 1 if busy < slots / 2 else 0
        if slots < self.minimum:
            return self.minimum, "never fewer"
        if delay > self.max_delay:
            reason = f"the event loop is {delay * 1000:.1f} ms late, more than {self.max_delay * 1000:g}"
            return max(self.minimum, slots - max(1, slots // 4)), reason
        if busy == slots and more and delay <= self.max_delay / 2:
            return min(self.maximum, slots * 2), "every slot is busy"
        if self._idle >= IDLE_LOOKS:
            self._idle = 0
            return max(self.minimum, slots - max(1, slots // 4)), f"only {busy} of {slots} slots are busy"
        return slots, ""
