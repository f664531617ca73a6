"""The picture example with QUEUE=rabbitmq."""

import os
import signal
from pathlib import Path

import pytest

from tests.support.pictures import a_picture, running_pictures
from tests.support.programs import START_SECONDS, wait_until
from tests.support.rabbitmq import INSTALLED, REASON, rabbitmq_of


@pytest.mark.timeout(240)
@pytest.mark.skipif(not INSTALLED, reason=REASON)
def test_on_rabbitmq_a_killed_worker_or_broker_loses_nothing(tmp_path: Path) -> None:
    with running_pictures(tmp_path, QUEUE="rabbitmq", STALE_SECONDS="600") as example:
        example.wait_for(example.upload().json["url"], "ready")
        data = a_picture("JPEG", (3000, 2000))
        os.kill(worker := example.pid("worker"), signal.SIGSTOP)  # it gets messages, and acknowledges none
        urls = [example.upload(data).json["url"] for _ in range(3)]
        broker = rabbitmq_of(tmp_path)
        wait_until(lambda: not example.waiting_in_outbox(), "RabbitMQ has the jobs", START_SECONDS)
        os.kill(worker, signal.SIGKILL)
        for url in urls:
            example.wait_for(url, "ready")
        os.kill(broker.pid, signal.SIGKILL)
        url = example.upload().json["url"]  # its job waits in the outbox
        example.wait_for(url, "ready")
        assert example.request("GET", "/queue")[0].status == 404, "RabbitMQ has pages of its own"
