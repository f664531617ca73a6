"""The picture example with other parts: RabbitMQ as its queue, and S3 as its store. Both are killed, and the worker."""

import os
import signal
from pathlib import Path

import pytest

from tests.support import rabbitmq, s3
from tests.support.pictures import a_picture, running_pictures
from tests.support.programs import START_SECONDS, freeze, wait_until


@pytest.mark.timeout(240)
@pytest.mark.skipif(not rabbitmq.INSTALLED, reason=rabbitmq.REASON)
@pytest.mark.skipif(not s3.INSTALLED, reason=s3.REASON)
def test_on_rabbitmq_and_s3_a_kill_loses_nothing(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with (
        s3.running_s3(tmp_path / "s3") as store,
        running_pictures(
            data_dir, QUEUE="rabbitmq", STORE_URL="s3://pictures/here", STALE_SECONDS="600", **store.variables
        ) as example,
    ):
        ready = example.wait_for(example.upload().json["url"], "ready")
        assert example.request("GET", ready["large"])[1][8:12] == b"WEBP"
        assert example.request("GET", "/queue")[0].status == 404, "RabbitMQ has pages of its own"

        freeze(worker := example.pid("worker"))  # it gets messages, and acknowledges none
        data = a_picture("JPEG", (2000, 1500))
        urls = [example.upload(data).json["url"] for _ in range(3)]
        wait_until(lambda: not example.waiting_in_outbox(), "RabbitMQ has the jobs", START_SECONDS)
        store.kill()
        os.kill(worker, signal.SIGKILL)
        refused = example.upload()
        assert (refused.status, refused.headers["Retry-After"]) == (503, "2")
        example.program.wait_for_line("after attempt 1: Outage: Generic S3 error", START_SECONDS)
        os.kill(rabbitmq.rabbitmq_of(data_dir).pid, signal.SIGKILL)
        store.start()
        urls.append(example.upload().json["url"])  # its job waits in the outbox
        for url in urls:
            example.wait_for(url, "ready")
