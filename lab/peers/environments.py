"""Installs a peer into a folder of its own, so that its packages do not conflict with others."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from lab.harness.processes import ROOT
from lab.peers.catalogue import OURS, PROGRAMS, Peer

FOLDER = ROOT / ".data" / "peers"
INSTALL_SECONDS = 600.0


class NotInstalled(Exception):
    """A peer cannot be installed here. The message says why, in one line."""


def command_of(peer: Peer) -> list[str]:
    """The command that runs the peer's program; installs it first if that is needed. Raises NotInstalled."""
    module = ["-m", f"lab.bench.peers.{peer.name}"]
    if peer.name == OURS:
        return [sys.executable, *module]
    own = FOLDER / peer.name
    _install(peer, own)
    if not peer.is_node:
        return [str(own / "bin" / "python"), *module]
    for name in ("interface", peer.name):  # Node looks for packages beside the program
        shutil.copy(PROGRAMS / f"{name}.mjs", own)
    return ["node", str(own / f"{peer.name}.mjs")]


def _install(peer: Peer, own: Path) -> None:
    """The file `installed` is written last, so an interrupted installation starts again."""
    mark, wanted = own / "installed", json.dumps(peer.packages)
    if mark.exists() and mark.read_text() == wanted:
        return
    if peer.is_node and not (shutil.which("node") and shutil.which("npm")):
        raise NotInstalled("Node with npm is not installed")
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    if peer.is_node:
        (own / "package.json").write_text('{"private": true, "type": "module"}\n')
        _run(["npm", "install", "--no-audit", "--no-fund", "--save-exact", *peer.packages], own)
    else:
        _run([sys.executable, "-m", "venv", str(own)], own)
        pip = [str(own / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, *peer.packages], own)
    mark.write_text(wanted)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"cannot be installed: {error}") from None
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        raise NotInstalled(f"cannot be installed: {last[0]}")
