"""A proxy in front of Redis that resets all connections again and again."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lab.harness.proxy import Proxy, a_proxy_thread

MOST_SECONDS = 0.3


@contextmanager
def dropping_proxy(port: int, every_seconds: float) -> Iterator[Proxy]:
    """A proxy in a separate thread. It resets all connections every `every_seconds`, and less often on a busy machine.

    A connection must last long enough for one call, or the strategies behind the proxy can do nothing at all.
    """
    stop = threading.Event()
    waiting_for_each_core = os.getloadavg()[0] / (os.cpu_count() or 1)
    every_seconds = min(every_seconds * max(1.0, waiting_for_each_core), MOST_SECONDS)

    def cut_again_and_again(proxy: Proxy) -> None:
        while not stop.wait(every_seconds):
            proxy.cut()

    with a_proxy_thread(1) as [proxy]:
        proxy.lead_to(port)
        cutting = threading.Thread(target=cut_again_and_again, args=(proxy,))
        cutting.start()
        try:
            yield proxy
        finally:
            stop.set()
            cutting.join()
