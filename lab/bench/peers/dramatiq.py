"""dramatiq with its Redis broker: https://dramatiq.io"""

import threading

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from lab.bench.peers.interface import URL, concurrency, enqueue_all_in_thread, is_worker, job_in_thread

broker = RedisBroker(url=URL)
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="noop")
def noop(number: int, text: str) -> None:
    job_in_thread(number)


if __name__ == "__main__":
    if is_worker():
        dramatiq.Worker(broker, worker_threads=concurrency()).start()
        threading.Event().wait()
    enqueue_all_in_thread(noop.send)
