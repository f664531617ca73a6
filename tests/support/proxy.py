"""A proxy in front of Redis that resets all connections again and again."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lab.harness.proxy import Proxy, a_proxy_thread


@contextmanager
def dropping_proxy(port: int, every_seconds: float) -> Iterator[Proxy]:
    """A proxy in a separate thread. It resets all connections every `every_seconds`."""
    stop = threading.Event()

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
