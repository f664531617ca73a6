"""huey with its Redis storage: https://huey.readthedocs.io"""

from huey import RedisHuey

from lab.bench.peers.interface import URL, concurrency, enqueue_all_in_thread, is_worker, job_in_thread

huey = RedisHuey("bench", url=URL)


@huey.task(name="noop")
def noop(number: int, text: str) -> None:
    job_in_thread(number)


if __name__ == "__main__":
    if is_worker():
        huey.create_consumer(workers=concurrency(), worker_type="thread").run()
    else:
        enqueue_all_in_thread(noop)
