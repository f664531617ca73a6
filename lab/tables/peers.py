"""The tables that compare other queues with ours, from results/peers.json."""

from collections.abc import Iterator
from typing import Any

from lab.compare.compare_report import machine_of
from lab.harness.figures import Facts, format_number
from lab.peers.catalogue import OURS
from lab.tables.saved import results

NOT_MEASURED = "Other queues have not been measured yet: `make bench PEERS=1` does that."


def peers() -> Iterator[str]:
    """All figures, the ratios to ours, and what became of the jobs of a killed worker."""
    if (saved := _saved()) is None:
        yield NOT_MEASURED
        return
    yield (
        "| | at a time | enqueued per second | worked off per second | from idle, ms "
        "| after a `kill -9`: done once / more often / not |"
    )
    yield "|---|---|---|---|---|---|"
    for peer in saved["peers"]:
        yield f"| {_title(peer)} | {peer['concurrency']} | {' | '.join(_figures(peer))} | {_killed(peer)} |"
    settings = saved["settings"]
    yield ""
    yield (
        f"(Medians of {settings['rounds']} rounds of {settings['jobs']:,} no-op jobs, and in brackets the ratio to "
        f"ours in the same round. Every write is on disk before its answer (`appendfsync {settings['appendfsync']}`), "
        "there is one worker process, and 200 callers enqueue, each with one call in flight; dramatiq and huey have "
        "no asyncio, so theirs enqueue one job after the other. *From idle*: from the call to the job, p50. Before "
        f"the kill, jobs take {settings['job_ms']} ms each. {machine_of(saved)})"
    )
    yield ""
    yield "What happens to a job whose worker is killed, with the settings of the table:"
    yield ""
    yield from (f"- {_title(peer)}: {peer['killed']}" for peer in saved["peers"])


def peers_in_short() -> Iterator[str]:
    """Without what varies most from machine to machine: only the ratios to ours."""
    if (saved := _saved()) is None:
        yield NOT_MEASURED
        return
    yield "| as a multiple of this queue | enqueues | works off | time from idle | jobs not done after a `kill -9` |"
    yield "|---|---|---|---|---|"
    for peer in saved["peers"]:
        ratios = peer["to_ours"]
        figures = [f"{ratios[name]:.2f}" if ratios else "not measured" for name in ("enqueued", "worked", "p50_ms")]
        yield f"| {peer['name']} | {' | '.join(figures)} | {_not_done(peer)} |"
    yield ""
    yield "([All figures and settings](../results/README.md#beside-other-queues).)"


def _saved() -> dict[str, Any] | None:
    try:
        return results("peers")
    except FileNotFoundError:
        return None


def _title(peer: Facts) -> str:
    return f"{peer['name']} ({', '.join(peer['packages'][:2])})" if peer["packages"] else peer["name"]


def _figures(peer: Facts) -> list[str]:
    if not peer["median"]:
        return [f"not measured: {peer['error']}", "", ""]
    figures = []
    for name in ("enqueued", "worked", "p50_ms"):
        ratio = f" ({peer['to_ours'][name]:.2f})" if peer["name"] != OURS else ""
        figures.append(format_number(peer["median"][name]) + ratio)
    return figures


def _killed(peer: Facts) -> str:
    kill = peer["kill"]
    if kill is None:
        return f"not measured: {peer['error']}"
    return (
        f"{kill['once']:,} / {kill['more']:,} / {_not_done(peer)}, waited {kill['waited_seconds']:.0f} s; "
        f"{kill['in_flight']} were in flight"
    )


def _not_done(peer: Facts) -> str:
    kill = peer["kill"]
    if kill is None:
        return "not measured"
    return f"**{kill['never']:,}** of {kill['jobs']:,}" if kill["never"] else "0"
