"""What `make compare` sends: how many emails, from how many clients, to how slow a mail server."""

import argparse
import math
from dataclasses import dataclass

from common.settings import Settings
from lab.harness.command import number_from

PER_CLIENT = 5  # emails per second
SESSIONS: int = Settings.model_fields["smtp_sessions"].default


@dataclass(frozen=True)
class Plan:
    emails: int = 200
    clients: int = 10
    latency_ms: int = 100

    @property
    def rate(self) -> float:
        """Emails per second."""
        return self.clients * PER_CLIENT

    @property
    def max_rate(self) -> float:
        """Emails per second that the mail server accepts from one strategy, in all its sessions."""
        return SESSIONS * 1000 / self.latency_ms if self.latency_ms else math.inf

    @property
    def answer_timeout(self) -> float:
        """Seconds for which a client waits for its answer: long enough if all other emails are sent first."""
        return 30.0 + self.emails / self.max_rate

    @property
    def round_timeout(self) -> float:
        """Seconds after which a round has failed: long enough for the slowest strategy with a single client."""
        return self.answer_timeout + self.emails * max(1 / self.rate, self.latency_ms / 1000)


def read_plan(parser: argparse.ArgumentParser) -> Plan:
    return Plan(
        emails=int(number_from(parser, "N", Plan.emails, 1)),
        clients=int(number_from(parser, "CLIENTS", Plan.clients, 1)),
        latency_ms=int(number_from(parser, "LATENCY_MS", Plan.latency_ms, 0)),
    )
