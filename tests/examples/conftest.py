"""Postgres and a store for the parts of the picture example."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from examples.pictures.database import Pool as Database
from examples.pictures.database import open_database
from examples.pictures.store import Store
from tests.support import s3
from tests.support.picture_site import Site, site_on
from tests.support.postgres import Postgres, running_postgres


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as postgres:
        yield postgres


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.S3Server]:
    if not s3.INSTALLED:
        pytest.skip(s3.REASON)
    with s3.running_s3(tmp_path_factory.mktemp("s3") / "data") as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "folder":
        return Store((tmp_path / "store").as_uri())
    for name, value in request.getfixturevalue("s3_server").variables.items():
        monkeypatch.setenv(name, value)
    return Store(f"s3://pictures/{uuid4()}")


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    async with open_database(await postgres.new_database()) as database:
        yield database


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Site:
    return site_on(database, Store((tmp_path / "store").as_uri()))
