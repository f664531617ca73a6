"""The embedded RabbitMQ: a private node of an installed server."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from common.services import rabbitmq as service
from common.services.service import Service, running
from common.settings import Settings
from tests.support.programs import is_alive, wait_until
from tests.support.rabbitmq import INSTALLED, REASON, RabbitMq

installed = pytest.mark.skipif(not INSTALLED, reason=REASON)


@installed
def test_it_listens_on_loopback_only_keeps_its_data_when_it_is_killed_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = epmds()
    settings = Settings(_env_file=None, data_dir=tmp_path, rabbitmq_port=0)  # type: ignore[call-arg]
    with Service(settings, "rabbitmq") as user:
        rabbitmq = RabbitMq(user.ports["RABBITMQ_PORT"], user.pid, tmp_path / "rabbitmq")
        listening = [each.laddr.ip for each in psutil.Process(user.pid).net_connections() if each.status == "LISTEN"]
        assert set(listening) == {"127.0.0.1"}
        assert (tmp_path / "rabbitmq" / ".erlang.cookie").stat().st_mode & 0o077 == 0
        rabbitmq.ask(lambda channel: channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"}))
        os.kill(user.pid, signal.SIGKILL)
        wait_until(lambda: running(tmp_path, "rabbitmq") is None, "it is dead")
        assert user.ensure() is True
        assert user.ports["RABBITMQ_PORT"] == rabbitmq.port, "it comes back on its port"
        rabbitmq.ask(lambda channel: channel.declare_queue("kept", passive=True))
        node = psutil.Process(user.pid)
        family = [node, *node.children(recursive=True)]
    wait_until(lambda: not any(map(is_alive, family)), "all its processes have ended")
    assert epmds() <= before


def epmds() -> set[int]:
    return {process.pid for process in psutil.process_iter(["name"]) if process.info["name"] == "epmd"}


def test_none_installed_is_one_line_that_names_amqp_url(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(service, "PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        service.find_program()
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "AMQP_URL" in line
