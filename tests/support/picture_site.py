"""The picture example without its web server: its database, its store, and a queue that the tests read."""

import io
from dataclasses import dataclass
from uuid import UUID, uuid4

from PIL import Image

from examples.pictures.database import Pool as Database
from examples.pictures.outbox import Order, Relay
from examples.pictures.pictures import Picture, Pictures, Upload, new_picture_id
from examples.pictures.pool import Died, Pool
from examples.pictures.resize import Resize
from examples.pictures.settings import PictureSettings
from examples.pictures.store import LARGE, ORIGINAL, THUMBNAIL, Store, key_of
from examples.pictures.sweep import Sweep

VERSIONS = {ORIGINAL, THUMBNAIL, LARGE}


def a_png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "PNG")
    return file.getvalue()


class Dead(Pool):
    """A pool whose processes die."""

    async def run(self, function: object, *arguments: object) -> object:  # type: ignore[override]
        raise Died("the process that read it has crashed")


@dataclass
class Site:
    """The parts of the program, without its processes."""

    database: Database
    pictures: Pictures
    store: Store
    resize: Resize
    sweep: Sweep

    async def upload(self, data: bytes | None = None) -> Picture:
        upload = Upload(new_picture_id(), uuid4(), "PNG", 1)
        await self.store.put(key_of(upload.picture, upload.id, ORIGINAL), a_png() if data is None else data)
        return await self.pictures.add(upload, "name")

    async def orders(self) -> list[Order]:
        """What the outbox holds; empties it."""
        found: list[Order] = []

        async def send(order: Order) -> None:
            found.append(order)

        await Relay(self.database, send).move()
        return found

    async def run(self, order: Order) -> Picture:
        await self.resize(order.arguments())
        return await self.reload(order.picture)

    async def reload(self, picture: UUID) -> Picture:
        found = await self.pictures.get(picture)
        assert found is not None
        return found

    async def keys(self) -> list[str]:
        return [file.key async for files in self.store.files() for file in files]


def site_on(database: Database, store: Store, pool: Pool | None = None) -> Site:
    pictures = Pictures(database)
    settings = PictureSettings(stale_seconds=0.001, orphan_seconds=0.001, max_pixels=10_000)
    resize = Resize(pictures, store, pool or Pool(1, 30.0, 1_000_000_000), settings.max_pixels)
    return Site(database, pictures, store, resize, Sweep(pictures, store, settings))
