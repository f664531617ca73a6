"""`make forget`: delete the data that the embedded services keep between runs. The inbox stores nothing on disk."""

import shutil

from common.services.service import running
from common.settings import exit_with_usage_error, read_settings

KEEPERS = {
    "valkey": "Valkey",
    "sentinel": "Sentinel",
    "cluster": "Redis Cluster",
    "rabbitmq": "RabbitMQ",
    "nats": "NATS",
    "nats_cluster": "the NATS cluster",
    "postgres": "Postgres",
}


def main() -> None:
    data = read_settings().data_dir
    for name, title in KEEPERS.items():
        if facts := running(data, name):
            exit_with_usage_error(f"{title} is running @ {facts['pid']}: stop the programs that use it first")
    replaced_by_restore = data.glob("valkey-before-*")
    for folder in [*[data / name for name in KEEPERS], *replaced_by_restore]:
        if folder.exists():
            shutil.rmtree(folder)
            print(f"deleted {folder}")


if __name__ == "__main__":
    main()
