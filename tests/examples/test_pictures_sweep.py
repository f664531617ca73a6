"""The sweep of the picture example, and files without a row."""

import asyncio
import os
from pathlib import Path
from uuid import uuid4

from examples.pictures.database import Pool as Database
from examples.pictures.pictures import Upload
from examples.pictures.pool import Pool
from examples.pictures.settings import PictureSettings
from examples.pictures.store import LARGE, ORIGINAL, THUMBNAIL, Store, key_of
from examples.pictures.sweep import Sweep
from tests.support.picture_site import VERSIONS, Site, a_png, site_on


async def test_the_job_of_a_deleted_or_replaced_picture_leaves_no_file(site: Site) -> None:
    deleted, replaced = await site.upload(), await site.upload()
    first, second = await site.orders()
    await site.pictures.delete(deleted.id)
    await site.resize(first.arguments())
    upload = Upload(replaced.id, uuid4(), "PNG", 1)
    await site.store.put(key_of(replaced.id, upload.id, ORIGINAL), a_png())
    await site.pictures.replace(upload, None)
    await site.resize(second.arguments())
    assert (await site.reload(replaced.id)).state == "uploaded"
    assert await site.store.names(replaced.id, replaced.upload) == {ORIGINAL}, "no version was made"
    [order] = await site.orders()
    assert (await site.run(order)).state == "ready"
    await site.sweep.reconcile()
    assert {key.split("/")[1] for key in await site.keys()} == {str(upload.id)}


async def test_a_picture_that_is_deleted_while_it_is_resized_leaves_no_file(site: Site) -> None:
    picture = await site.upload()
    [order] = await site.orders()

    class Slow(Pool):
        async def run(self, function: object, *arguments: object) -> object:  # type: ignore[override]
            await site.pictures.delete(picture.id)
            return await super().run(function, *arguments)  # type: ignore[arg-type]

    await site_on(site.database, site.store, Slow(1, 30.0, 1_000_000_000)).resize(order.arguments())
    assert await site.keys() == []


async def test_the_sweep_orders_another_job_for_a_picture_without_one(site: Site) -> None:
    picture = await site.upload()
    await site.sweep.order_stale()
    assert len(await site.orders()) == 1, "the first job is still in the outbox"
    await site.pictures.begin(picture.id, picture.upload)  # and the worker, or Redis, loses it
    await asyncio.sleep(0.01)
    await site.sweep.order_stale()
    [order] = await site.orders()
    assert (await site.run(order)).state == "ready"


async def test_the_sweep_deletes_files_without_a_row(database: Database, store: Store) -> None:
    site = site_on(database, store)
    picture = await site.upload()
    await store.put(key_of(uuid4(), uuid4(), ORIGINAL), b"its row was never written")
    await store.put(key_of(picture.id, uuid4(), LARGE), b"of an upload that was replaced")
    await store.put("something/else", b"")
    await asyncio.sleep(1.1)  # S3 knows whole seconds
    await site.sweep.reconcile()
    assert await site.keys() == [key_of(picture.id, picture.upload, ORIGINAL)]


async def test_the_sweep_spares_files_that_may_still_get_a_row(site: Site) -> None:
    await site.store.put(key_of(uuid4(), uuid4(), ORIGINAL), b"being uploaded")
    settings = PictureSettings(orphan_seconds=600)
    await Sweep(site.pictures, site.store, settings).reconcile()
    assert len(await site.keys()) == 1


async def test_the_sweep_deletes_what_a_killed_process_has_half_written(site: Site, tmp_path: Path) -> None:
    picture = await site.upload()
    half = tmp_path / "store" / f"{picture.id}/{picture.upload}/{LARGE}#1"
    half.write_bytes(b"half")
    os.utime(half, (1, 1))
    await site.sweep.reconcile()
    assert not half.exists()


async def test_the_sweep_makes_a_lost_version_again(site: Site) -> None:
    picture = await site.upload()
    await site.run((await site.orders())[0])
    await site.store.delete_file(key_of(picture.id, picture.upload, THUMBNAIL))
    await site.sweep.reconcile()
    [order] = await site.orders()
    assert (await site.run(order)).state == "ready"
    assert await site.store.names(picture.id, picture.upload) == VERSIONS
