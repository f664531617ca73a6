"""A limit on open connections, below the process's limit on file descriptors (`ulimit -n`).

So the process always has descriptors left for its own work. At the limit, a new connection replaces the one that has
been idle longest; if none is idle, the new one is refused.
"""

import logging
import resource
from typing import Protocol

from asynckit.log_limit import OncePerSecond

log = OncePerSecond(logging.getLogger(__name__))


class Connection(Protocol):
    def is_idle(self) -> bool: ...
    def force_close(self) -> None: ...


class Connections:
    """The open connections, oldest first. A quarter of the descriptors is left for files, SMTP sessions and Redis."""

    def __init__(self, descriptors: int | None = None) -> None:
        descriptors = descriptors or _descriptors()
        self.limit = max(1, descriptors * 3 // 4)
        # The server accepts the whole backlog at once, before the limit can act, so it must fit into that quarter.
        self.backlog = max(1, min(1024, descriptors // 8))
        self._open: dict[Connection, None] = {}

    def admit(self, connection: Connection) -> bool:
        """Whether this new connection may stay open. If so, call `remove` when it has closed."""
        if len(self._open) >= self.limit:
            oldest = next((one for one in self._open if one.is_idle()), None)
            log.warning(
                "%d connections are open, the limit: %s",
                len(self._open),
                "a new one is refused" if oldest is None else "the oldest idle one is closed",
            )
            if oldest is None:
                return False
            self.remove(oldest)
            oldest.force_close()
        self._open[connection] = None
        return True

    def remove(self, connection: Connection) -> None:
        self._open.pop(connection, None)


def _descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
