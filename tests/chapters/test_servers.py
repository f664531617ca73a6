"""`make run-N SERVERS=3`: several web server processes on one port count as one."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.support.programs import Program, Strategy, ask, frozen, running_strategy, someone, wait_until
from tests.support.servers import Inbox, Valkey

SERVERS = 3


def settled(strategy: Strategy, **figures: object) -> dict[str, Any]:
    """Wait until each of the server processes gives the same figures. The kernel chooses which one answers."""

    def all_agree() -> dict[str, Any] | None:
        answers = [answered(strategy) for _ in range(10)]
        found = [{name: stats[name] for name in figures} for stats in answers if stats is not None]
        return answers[0] if found == [figures] * 10 else None

    return wait_until(all_agree, f"ten answers with {figures}")


def answered(strategy: Strategy) -> dict[str, Any] | None:
    """The figures, or None if a frozen or killed server got the connection."""
    try:
        with urlopen(strategy.url + "/stats", timeout=3) as answer:
            stats: dict[str, Any] = json.load(answer)
    except OSError:
        return None
    return stats


def server_pids(strategy: Strategy) -> list[int]:
    return [int(pid) for pid in re.findall(r"^\[server @ (\d+)\].* listening on", strategy.program.output, re.M)]


@pytest.mark.parametrize("name", ["1_foreground", "2_parallel", "5_remote_queue"])
def test_every_server_process_knows_the_figures_of_all(name: str, inbox: Inbox, valkey: Valkey, tmp_path: Path) -> None:
    valkey.client.flushdb()
    urls = {"SMTP_URL": inbox.smtp_url, "REDIS_URL": valkey.url}
    with running_strategy(name, tmp_path, SERVERS=str(SERVERS), **urls) as strategy:
        wait_until(lambda: len(server_pids(strategy)) == SERVERS, "three servers")
        pids = server_pids(strategy)
        to = someone()
        for _ in range(30):
            assert strategy.send(to).status < 300
        inbox.wait_for(to, 30)
        settled(strategy, accepted=30, sent=30, waiting=0, in_flight=0, servers=SERVERS)
        samples = re.findall(
            r'^emails_accepted_total\{server="(\d+)".*\} (\d+)', ask(strategy.url, "/metrics").text, re.M
        )
        assert {int(pid) for pid, _ in samples} == set(pids)
        assert sum(int(count) for _, count in samples) == 30
        # A frozen server may have counted more since: the others do not guess.
        with frozen(pids[0]):
            stats = wait_until(lambda: answered(strategy), "another server answers")
            assert (stats["accepted"], stats["servers"]) == (None, SERVERS)
            assert stats["sent"] == (None if name in ("1_foreground", "2_parallel") else 30)
        settled(strategy, accepted=30, servers=SERVERS)
        # What a killed server had counted is gone with it, and the one that replaces it is found.
        counted = dict(samples)[str(pids[1])]
        os.kill(pids[1], signal.SIGKILL)
        settled(strategy, accepted=30 - int(counted), servers=SERVERS)
        assert strategy.send(to).status < 300
        inbox.wait_for(to, 31)


def test_strategy_3_has_one_web_server(tmp_path: Path) -> None:
    program = Program(["make", "run-3"], {"SERVERS": "2", "DATA_DIR": str(tmp_path), "PORT": "0"})
    program.wait_for_line("SERVERS: 3_local_messages runs one web server, which its master starts")
    program.stop()
