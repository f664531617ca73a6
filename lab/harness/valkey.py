"""A Valkey for one experiment: the embedded one, on a free port, with an empty data folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import mkdtemp

from common.services.service import Service
from common.settings import Settings
from lab.harness.processes import Lab


@contextmanager
def valkey(lab: Lab) -> Iterator[str]:
    """Yields its URL. It runs as in the strategies: every write is on disk before its answer (`appendfsync always`)."""
    folder = mkdtemp(prefix="valkey-", dir=lab.folder)
    settings = Settings.model_construct(data_dir=lab.folder / folder, valkey_port=0)  # reads no environment
    with Service(settings, "valkey") as service:
        yield f"redis://127.0.0.1:{service.ports['VALKEY_PORT']}/0"
