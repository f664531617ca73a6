"""The nodes of a Redis Cluster as an operator sees them, and the steps that move a slot from one to another."""

from typing import Any

from redis.crc import key_slot

from lab.harness.processes import wait_until


class Cluster:
    def __init__(self, ports: list[int], clients: list[Any]) -> None:
        self.ports = ports
        self.clients = clients  # one for each node; they follow no redirections
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)

    def owner(self, slot: int) -> int:
        """The index of the node that has the slot, by its own account."""
        return wait_until(lambda: self._owners(slot), f"a node has slot {slot}")[0]

    def _owners(self, slot: int) -> list[int]:
        return [number for number, client in enumerate(self.clients) if self.owner_as_seen_by(client, slot) == number]

    def owner_as_seen_by(self, client: Any, slot: int) -> int | None:
        ranges = client.execute_command("CLUSTER", "SLOTS")
        return next((self.ports.index(row[2][1]) for row in ranges if row[0] <= slot <= row[1]), None)

    def move(self, key: str) -> "Move":
        """Prepare the move of this key's slot to the next node that has slots."""
        slot = key_slot(key.encode())
        source = self.owner(slot)
        others = [number for number in self.primaries() if number != source]
        return Move(self, slot, source, next((number for number in others if number > source), others[0]))

    def primaries(self) -> list[int]:
        ranges = self.clients[0].execute_command("CLUSTER", "SLOTS")
        return sorted({self.ports.index(row[2][1]) for row in ranges})

    def move_at_once(self, key: str) -> None:
        """Move the slot with one command of Valkey 9, which is atomic."""
        move = self.move(key)
        target = self._id(move.target)
        self.clients[move.source].execute_command(
            "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", move.slot, move.slot, "NODE", target
        )
        wait_until(move.is_known, "all nodes know of the move")

    def _id(self, number: int) -> str:
        return str(self.clients[number].execute_command("CLUSTER", "MYID"))


class Move:
    """The move of one slot, step by step, as `redis-cli --cluster reshard` does it."""

    def __init__(self, cluster: Cluster, slot: int, source: int, target: int) -> None:
        self.slot, self.source, self.target = slot, source, target
        self._cluster = cluster
        self._from, self._to = cluster.clients[source], cluster.clients[target]
        self._source_id, self._target_id = cluster._id(source), cluster._id(target)

    def begin(self) -> None:
        self._to.execute_command("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self._source_id)
        self._from.execute_command("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self._target_id)

    def move_keys(self, number: int = 1000) -> None:
        port = self._cluster.ports[self.target]
        for key in self._from.execute_command("CLUSTER", "GETKEYSINSLOT", self.slot, number):
            self._from.execute_command("MIGRATE", "127.0.0.1", port, key, 0, 1000)

    def end(self) -> None:
        """Tell both nodes, and wait until the others have heard of it: a second move before that may lose the slot."""
        for client in (self._to, self._from):
            client.execute_command("CLUSTER", "SETSLOT", self.slot, "NODE", self._target_id)
        wait_until(self.is_known, "all nodes know of the move")

    def is_known(self) -> bool:
        return {self._cluster.owner_as_seen_by(client, self.slot) for client in self._cluster.clients} == {self.target}

    def run(self) -> None:
        self.begin()
        self.move_keys(2)
        self.move_keys()
        self.end()
