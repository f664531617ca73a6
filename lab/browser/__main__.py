"""`make lab`: starts the browser lab and prints its address."""

import argparse
import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from common.address import free_port
from common.http.serving import start
from common.processes.process import run, stop_requested
from lab.browser.lab_page import LOOPBACK, LabPage
from lab.browser.laboratory import Laboratory
from lab.browser.tracked_lab import TrackedLab
from lab.harness.command import names_from, number_from, refuse_env_overrides
from lab.load.steady import allow_open_files

PORT = 8600  # the same every time, because the browser keeps the score for each address
THREADS = 40  # each lane may have one that waits for a frozen process


def chosen_port(wanted: int) -> int:
    """The usual port, or any free one if another lab has it."""
    try:
        return free_port(LOOPBACK, wanted)
    except OSError:
        return 0


async def serve(port: int, names: str) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "lab"))
    with TemporaryDirectory(prefix="six-ways-lab-", ignore_cleanup_errors=True) as folder:
        laboratory = Laboratory(TrackedLab(Path(folder)), names)
        runner = await start(LabPage(laboratory).create_app(), LOOPBACK, chosen_port(port))
        print(f"the lab is at http://{LOOPBACK}:{runner.addresses[0][1]}/", flush=True)
        print("Ctrl-C stops it", flush=True)
        await stop_requested()
        print("stopping all processes", flush=True)
        await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description="The browser lab: all six strategies side by side, to be broken.")
    parser.parse_args()
    refuse_env_overrides(parser)
    names = "".join(names_from(parser, "STRATEGIES", list("123456")))
    port = int(number_from(parser, "LAB_PORT", PORT, 0, 65_535))
    allow_open_files()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    run(serve(port, names))


if __name__ == "__main__":
    main()
