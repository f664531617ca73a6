"""The settings of this example, besides those that all programs share."""

from typing import Annotated

from pydantic import AfterValidator, PositiveInt, SecretStr

from common.settings import Seconds, Settings

SCHEMES = ("file:///", "s3://")


def _check_store_url(url: SecretStr) -> SecretStr:
    """Raises ValueError with a reason that names no part of the URL."""
    if not any(url.get_secret_value().startswith(s) and len(url.get_secret_value()) > len(s) for s in SCHEMES):
        raise ValueError("expected file:///folder or s3://bucket/prefix")
    return url


class PictureSettings(Settings):
    store_url: Annotated[SecretStr, AfterValidator(_check_store_url)] | None = None  # unset: DATA_DIR/pictures
    max_upload_bytes: PositiveInt = 20_000_000
    max_pixels: PositiveInt = 50_000_000  # of one picture; decoded, each takes 4 bytes, and there are a few copies
    resize_seconds: Seconds = 20.0  # for one picture
    resize_bytes: PositiveInt = 2_000_000_000  # memory of one process
    resize_processes: PositiveInt = 2
    stale_seconds: Seconds = 120.0  # a picture without progress for this long is enqueued again
    reconcile_seconds: Seconds = 600.0  # between two comparisons of the rows with the files
    orphan_seconds: Seconds = 600.0  # a file of this age without a row is deleted; longer than an upload takes

    @property
    def store(self) -> str:
        """STORE_URL, or else a folder in DATA_DIR. Never log it, because it may contain a password."""
        if self.store_url is not None:
            return self.store_url.get_secret_value()
        return (self.data_dir.absolute() / "pictures").as_uri()
