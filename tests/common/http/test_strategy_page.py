"""The script of a strategy's page, run by Node with a page that takes whatever the script does to it."""

import subprocess

import pytest

from tests.support.node_peer import NODE
from tests.support.programs import LIMIT, ROOT

SCRIPT = ROOT / "common/http/pages/assets/strategy.js"
RUN = """
const element = () => new Proxy(function () {}, { get: () => element(), set: () => true, apply: () => element() });
const context = {
  document: {
    getElementById: (id) => (id === "inbox" ? null : element()),
    createElement: element,
    addEventListener() {},
    body: { dataset: { strategy: "1_foreground" } },
    hidden: false,
  },
  location: { origin: "", hostname: "127.0.0.1", reload: () => console.log("reload") },
  fetch: async () => ({ json: async () => ({ strategy: process.argv[2] }) }),
  setTimeout() {}, Intl, performance, URL, URLSearchParams,
};
require("vm").runInNewContext(require("fs").readFileSync(process.argv[1], "utf8"), context);
"""


@pytest.mark.skipif(NODE is None, reason="there is no node")
@pytest.mark.parametrize(("running", "printed"), [("1_foreground", ""), ("4_remote_messages", "reload\n")])
def test_the_page_reloads_when_another_strategy_runs_on_its_port(running: str, printed: str) -> None:
    command = [str(NODE), "-e", RUN, str(SCRIPT), running]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT).stdout == printed
