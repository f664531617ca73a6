"""Keeps the logs of a broken cell, so that you can find out afterwards why it broke."""

import json
import shutil
from contextlib import suppress
from typing import Any

from lab.harness.command import PARTIAL
from lab.harness.processes import Lab

BROKEN = PARTIAL / "broken"


def keep_logs(lab: Lab, facts: dict[str, Any]) -> None:
    """Copy the logs of all processes so far, the load's records among them, and the mail server's journal.

    The lab deletes its folder at the end, and a restart deletes the logs of the servers. The copy replaces that of an
    earlier run. What cannot be copied is left out, because the cell must be reported in any case.
    """
    kept = BROKEN / facts["subject"] / facts["fault"]
    shutil.rmtree(kept, ignore_errors=True)
    with suppress(OSError):
        kept.mkdir(parents=True)
        (kept / "cell.json").write_text(json.dumps(facts, indent=2) + "\n")
    for file in [lab.folder / "journal", *lab.folder.rglob("*.log")]:
        copy = kept / file.relative_to(lab.folder)
        with suppress(OSError):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
