"""The figures of `/stats` in Prometheus's text format, without those that are null."""

from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

COUNTERS = ("accepted", "sent", "failed", "retried")
GAUGES = ("waiting", "in_flight", "oldest_wait_seconds")

Stats = dict[str, Any]


def prometheus_metrics(strategy: str, stats: Stats, of_servers: Mapping[str, Stats]) -> web.Response:
    """One sample for each number in `stats`; for those in `of_servers`, one for each server process instead.

    A counter of one process starts again at 0 when the process does, which Prometheus understands. It would take a sum
    over several processes that falls for a sum that has started again at 0, and count the rest of it a second time.
    """
    registry = CollectorRegistry()
    registry.register(_StatsCollector(strategy, stats, of_servers))
    return web.Response(body=generate_latest(registry), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})


class _StatsCollector(Collector):
    def __init__(self, strategy: str, stats: Stats, of_servers: Mapping[str, Stats]) -> None:
        self._strategy = strategy
        self._stats = stats
        self._of_servers = of_servers

    def collect(self) -> Iterable[Metric]:
        for name, value in self._stats.items():
            own = {server: stats[name] for server, stats in self._of_servers.items() if name in stats}
            family = CounterMetricFamily if name in COUNTERS else GaugeMetricFamily
            labels = ("strategy", "server") if own else ("strategy",)
            metric = family(f"emails_{name}", f"{name} of /stats", labels=labels)
            for server, number in own.items() if own else [("", value)]:
                if isinstance(number, (int, float)) and not isinstance(number, bool):
                    metric.add_metric([self._strategy, server][: len(labels)], number)
            if metric.samples:
                yield metric
