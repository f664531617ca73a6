"""The multi-worker: how many jobs one process runs at a time, controlled by the delay of its event loop.

I/O-bound jobs hardly load the loop, so more of them may run; CPU-bound jobs delay the loop, so fewer should. You need
not say in advance which kind your jobs are.
"""

from dataclasses import dataclass

LOOK_SECONDS = 0.1  # between two decisions
IDLE_LOOKS = 50  # decisions in a row that find most slots idle, before some are removed


@dataclass
class Scaling:
    """Chooses between `minimum` and `maximum` slots so that the loop's delay stays below `max_delay` seconds."""

    minimum: int = 1
    maximum: int = 50
    max_delay: float = 0.01
    _idle: int = 0

    def decide(self, slots: int, busy: int, delay: float, *, more: bool) -> tuple[int, str]:
        """Return the new number of slots and the reason. `more`: there may be jobs for more slots.

        It grows by doubling, from 1 to 100 in less than a second, and shrinks by a quarter at a time; when most slots
        are idle it shrinks only after IDLE_LOOKS decisions.
        """
        self._idle = self._idle + 1 if busy < slots / 2 else 0
        if slots < self.minimum:
            return self.minimum, "below the minimum"
        if delay > self.max_delay:
            reason = f"the event loop is {delay * 1000:.1f} ms late, more than {self.max_delay * 1000:g}"
            return max(self.minimum, slots - max(1, slots // 4)), reason
        if busy == slots and more and delay <= self.max_delay / 2:
            return min(self.maximum, slots * 2), "every slot is busy"
        if self._idle >= IDLE_LOOKS:
            self._idle = 0
            return max(self.minimum, slots - max(1, slots // 4)), f"only {busy} of {slots} slots are busy"
        return slots, ""
