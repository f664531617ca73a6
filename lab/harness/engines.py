"""The engines on which strategies 5 and 6 run in place of Redis: which of them this machine has."""

from collections.abc import Mapping

from common.services import nats, rabbitmq


def missing(settings: Mapping[str, str]) -> str | None:
    """Why a strategy with these settings cannot run on this machine, as one line; None if it can."""
    if settings.get("QUEUE") == "rabbitmq" and rabbitmq.installed() is None:
        return rabbitmq.NOT_INSTALLED
    if settings.get("LOG") == "jetstream" and nats.installed() is None:
        return nats.NOT_INSTALLED
    return None
