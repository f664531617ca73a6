"""Processes that the lab has frozen do not stay frozen when the lab is killed."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.support.programs import ROOT, wait_until

HELPER = "from lab.harness.frozen import frozen\nwith frozen(pid):\n    time.sleep(600)"
FAULT = """
from types import SimpleNamespace
from lab.faults.process_faults import stop
stop("server", 600, 601)(SimpleNamespace(pid=lambda role: pid), random)
"""
CLUSTER_FAULT = """
from lab.faults import topology_faults as faults
faults.two_primaries = lambda running, rng, begin: (begin(SimpleNamespace(pid=lambda name: pid), ""), time.sleep(600))
faults.freeze_primary(None, random)
"""
BEGIN = "import random, sys, time\nfrom types import SimpleNamespace\npid = int(sys.argv[1])\n"


@pytest.mark.parametrize("code", [HELPER, FAULT, CLUSTER_FAULT], ids=["helper", "server-stop", "primary-freeze"])
def test_a_frozen_process_is_thawed_when_the_program_that_froze_it_is_killed(code: str) -> None:
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        process = psutil.Process(sleeper.pid)
        program = [sys.executable, "-c", BEGIN + code, str(sleeper.pid)]
        with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.DEVNULL) as lab:
            try:
                wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "it is frozen")
                os.kill(lab.pid, signal.SIGKILL)
                wait_until(lambda: process.status() == psutil.STATUS_SLEEPING, "it is thawed")
            finally:
                lab.kill()
                sleeper.kill()


def test_all_experiments_freeze_processes_in_this_way() -> None:
    """Otherwise a process would stay frozen when the lab is killed."""
    found = {path.name for path in (ROOT / "lab").rglob("*.py") if "signal.SIGSTOP" in path.read_text()}
    assert found == {"frozen.py", "laboratory.py"}  # the second one freezes at the request of the page
