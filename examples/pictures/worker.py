"""The worker: it runs the jobs, and sweeps."""

from types import ModuleType

from asynckit.tasks import end_tasks, keep_running

from .database import open_database
from .pictures import Pictures
from .pool import Pool
from .resize import Resize
from .settings import PictureSettings
from .store import Store
from .sweep import Sweep


def queue_module(settings: PictureSettings) -> ModuleType:
    """The module with the two functions `open_queue` and `run_jobs` of the queue that QUEUE chooses."""
    if settings.queue == "rabbitmq":
        from . import on_rabbitmq  # its client is an extra

        return on_rabbitmq
    from . import on_resque

    return on_resque


async def work(settings: PictureSettings) -> None:
    """Until this process is stopped."""
    store = Store(settings.store)
    pool = Pool(settings.resize_processes, settings.resize_seconds, settings.resize_bytes)
    async with open_database(settings.database) as database:
        pictures = Pictures(database)
        sweeping = keep_running(Sweep(pictures, store, settings).run, "the sweep")
        try:
            await queue_module(settings).run_jobs(settings, Resize(pictures, store, pool, settings.max_pixels))
        finally:
            await end_tasks([sweeping])
