"""The library's first example and the chapter's job of your own, run as they are written."""

import asyncio
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import resque
from tests.support.programs import LIMIT, ROOT, until
from tests.support.resque import a_resque
from tests.support.servers import Valkey


def test_the_quick_start_of_the_library_s_readme_prints_what_it_says(valkey: Valkey) -> None:
    readme = ROOT / "resque" / "README.md"
    [code] = re.findall(r"(?ms)^```python\n(.*?)^```$", readme.read_text())
    program = code.replace("redis://127.0.0.1:6379/0", valkey.url)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=True
    )
    assert done.stdout == "Hello, Alice!\n"


async def test_the_first_example_of_the_library_runs(valkey: Valkey) -> None:
    code = re.search(r"\n\n((?:    .*\n|\n)+?)\nThe files", resque.__doc__)
    assert code
    source = f"async def example():\n{textwrap.indent(textwrap.dedent(code.group(1)), '    ')}"
    sent = asyncio.Event()
    emails = []

    async def send_email(email: dict[str, str]) -> None:
        emails.append(email["to"])
        sent.set()

    async def stop() -> str:
        await sent.wait()
        return "the example is over"

    async with a_resque(valkey) as r:
        names: dict[str, Any] = {
            **{name: getattr(resque, name) for name in resque.__all__},
            "redis": r.connections.commands,
            "url": valkey.url,
            "send_email": send_email,
            "stop": stop,
        }
        exec(source, names)
        await asyncio.wait_for(names["example"](), LIMIT)
        await until(lambda: emails == ["alice@example.com"])


def test_the_changes_of_the_chapter_fit_and_name_what_they_use(tmp_path: Path) -> None:
    """Each diff of the README applies to the file that it is about, and what is left has no unknown name."""
    text = (ROOT / "5_remote_queue" / "README.md").read_text()
    blocks = re.findall(r"```diff\n(.*?)```", text, re.DOTALL)
    sources = {name: (ROOT / "5_remote_queue" / name).read_text() for name in ("jobs.py", "server.py")}
    for block in blocks:
        before = "".join(line[1:] or "\n" for line in block.splitlines(True) if not line.startswith("+"))
        after = "".join(line[1:] or "\n" for line in block.splitlines(True) if not line.startswith("-"))
        [name] = [name for name, source in sources.items() if before in source]
        sources[name] = sources[name].replace(before, after, 1)
    [line] = re.findall(r"```python\n(await request\.app\[JOBS\].*)\n```", text)
    handing_over = "    await request.app[JOBS].enqueue(email)\n"
    assert handing_over in sources["server.py"]
    sources["server.py"] = sources["server.py"].replace(handing_over, f"{handing_over}    {line}\n")
    for name, source in sources.items():
        (tmp_path / name).write_text(source)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", str(tmp_path)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
