"""Rows, outbox, files and the sweep, on a real Postgres, and on a folder and a real S3 server."""

import asyncio
import io
from uuid import UUID, uuid4

import asyncpg
import pytest

from examples.pictures.database import Pool as Database
from examples.pictures.database import migrate
from examples.pictures.outbox import NotEnqueued, Order, Relay
from examples.pictures.pool import Died
from examples.pictures.resize import LOST, PROCESSES, TRIES
from examples.pictures.store import LARGE, ORIGINAL, Missing, Store, StoreDown, key_of
from tests.support.picture_site import VERSIONS, Dead, Site, site_on
from tests.support.postgres import Postgres


async def test_migrations_run_once_also_when_two_processes_start_together(postgres: Postgres) -> None:
    url = await postgres.new_database()
    connections = [await asyncpg.connect(url) for _ in range(3)]
    await asyncio.gather(*map(migrate, connections))
    numbers = await connections[0].fetch("SELECT number FROM migrations ORDER BY number")
    assert [row["number"] for row in numbers] == [1, 2]
    for connection in connections:
        await connection.close()


async def test_the_files_of_an_upload_are_written_listed_and_deleted(store: Store) -> None:
    picture, upload = uuid4(), uuid4()
    await store.put(key_of(picture, upload, ORIGINAL), b"one")
    await store.put(key_of(picture, upload, ORIGINAL), io.BytesIO(b"again"))
    await store.put(key_of(picture, uuid4(), LARGE), b"two")
    assert await store.get(key_of(picture, upload, ORIGINAL)) == b"again"
    assert await store.names(picture, upload) == {ORIGINAL}
    assert len([file async for files in store.files() for file in files]) == 2
    await store.delete(picture, upload)
    assert await store.names(picture, upload) == set()
    await store.delete(picture)
    await store.delete(picture)
    await store.delete_file(key_of(picture, upload, LARGE))
    assert [files async for files in store.files() if files] == []
    with pytest.raises(Missing):
        await store.get(key_of(picture, upload, ORIGINAL))


async def test_a_store_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a key, obstore would ask the cloud's metadata service for one.
    names = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "made-up", "AWS_ALLOW_HTTP": "true"}
    for name, value in (names | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreDown) as caught:
        await Store("s3://bucket").put("a/b/c", b"")
    assert "\n" not in str(caught.value)


async def test_a_picture_becomes_ready_and_a_job_that_comes_twice_changes_nothing(
    database: Database, store: Store
) -> None:
    site = site_on(database, store)
    picture = await site.upload()
    [order] = await site.orders()
    assert (order.picture, order.upload, picture.state) == (picture.id, picture.upload, "uploaded")
    done = await site.run(order)
    assert (done.state, done.width, done.height, done.tries) == ("ready", 40, 30, 1)
    assert await store.names(picture.id, picture.upload) == VERSIONS
    assert await site.run(order) == done
    await site.sweep.order_stale()
    await site.sweep.reconcile()
    assert (await site.orders(), len(await site.keys())) == ([], 3), "the sweep finds nothing to repair"


async def test_the_outbox_keeps_what_the_queue_did_not_take(site: Site) -> None:
    pictures = [await site.upload() for _ in range(3)]
    sent: list[UUID] = []

    async def send(order: Order) -> None:
        if len(sent) == 2:
            raise NotEnqueued("it is down")
        sent.append(order.picture)

    with pytest.raises(NotEnqueued):
        await Relay(site.database, send).move()
    assert sent == [picture.id for picture in pictures[:2]], "the oldest first"
    orders = await site.orders()
    assert [order.picture for order in orders] == [picture.id for picture in pictures], "some come twice, none is lost"
    assert await site.orders() == []


async def test_two_relays_do_not_send_the_same_row_at_the_same_time(site: Site) -> None:
    await site.upload()
    sent, going, second_is_done = [], asyncio.Event(), asyncio.Event()

    async def slow(order: Order) -> None:
        sent.append(order)
        going.set()
        await second_is_done.wait()

    first = asyncio.create_task(Relay(site.database, slow).move())
    await going.wait()
    assert await Relay(site.database, slow).move() == 0
    second_is_done.set()
    assert (await first, len(sent)) == (1, 1)


async def test_what_no_version_can_be_made_of_fails_with_the_reason(site: Site) -> None:
    await site.upload(b"\x89PNG\r\n\x1a\n")
    failed = await site.run((await site.orders())[0])
    assert (failed.state, "damaged" in failed.reason, failed.to_dict()["thumbnail"]) == ("failed", True, None)


async def test_a_picture_on_which_its_process_dies_is_tried_again_and_then_fails(site: Site) -> None:
    site = site_on(site.database, site.store, Dead(1, 1.0, 1))
    await site.upload()
    [order] = await site.orders()
    for _ in range(PROCESSES - 1):
        with pytest.raises(Died):
            await site.run(order)
    failed = await site.run(order)
    assert (failed.state, failed.reason) == ("failed", f"the process that read it has crashed, {PROCESSES} times")


async def test_a_picture_on_which_the_worker_dies_again_and_again_fails(site: Site) -> None:
    picture = await site.upload()
    for _ in range(TRIES):  # begun, and killed
        assert await site.pictures.begin(picture.id, picture.upload)
    failed = await site.run((await site.orders())[0])
    assert (failed.state, failed.reason) == ("failed", f"its worker has died {TRIES} times")


async def test_an_outage_of_the_store_is_no_try_of_the_picture(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = await site.upload()
    [order] = await site.orders()

    async def refuse(key: str, data: bytes) -> None:
        raise StoreDown("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(site.store, "put", refuse)
        with pytest.raises(StoreDown):
            await site.run(order)
    assert (await site.reload(picture.id)).tries == 0
    assert (await site.run(order)).state == "ready"


async def test_a_picture_whose_original_is_lost_fails(site: Site) -> None:
    picture = await site.upload()
    await site.store.delete(picture.id)
    failed = await site.run((await site.orders())[0])
    assert (failed.state, failed.reason) == ("failed", LOST)


async def test_the_list_is_read_page_by_page_the_newest_first(site: Site) -> None:
    made = []
    for _ in range(3):
        made.append((await site.upload()).id)
        await asyncio.sleep(0.002)  # the ids of one millisecond have no order
    newest = [picture.id for picture in await site.pictures.newest(count=2)]
    older = [picture.id for picture in await site.pictures.newest(newest[-1], count=2)]
    assert newest + older == made[::-1]
