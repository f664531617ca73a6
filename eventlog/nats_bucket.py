"""A key-value bucket of JetStream: a stream that keeps the last message of each subject. `nats kv` reads it too."""

import base64

from .nats_client import ANSWER_SECONDS, NO_MESSAGE, Nats, Refused


class Bucket:
    def __init__(self, nats: Nats, name: str) -> None:
        self._nats = nats
        self._name = name
        self.stream = f"KV_{name}"

    async def create(self, replicas: int) -> None:
        keys = {"subjects": [f"$KV.{self._name}.>"], "max_msgs_per_subject": 1, "allow_rollup_hdrs": True}
        await self._nats.make_stream(self.stream, num_replicas=replicas, **keys)

    async def put(self, key: str, value: bytes) -> int:
        """The revision of this value."""
        return await self._nats.publish(f"$KV.{self._name}.{key}", value)

    async def get(self, key: str, limit: float = ANSWER_SECONDS) -> tuple[bytes, int] | None:
        """The value and its revision; None if there is no value. The leader of the stream answers, so the value is the
        newest. `limit` is the time limit in seconds.
        """
        subject = f"$KV.{self._name}.{key}"
        try:
            found = await self._nats.api(f"STREAM.MSG.GET.{self.stream}", limit=limit, last_by_subj=subject)
        except Refused as error:
            if error.code == NO_MESSAGE:
                return None
            raise
        return base64.b64decode(found["message"].get("data", "")), found["message"]["seq"]

    async def keys(self, under: str) -> list[str]:
        """The keys that begin with `under` and a dot, without this beginning."""
        prefix = f"$KV.{self._name}.{under}."
        found = await self._nats.api(f"STREAM.INFO.{self.stream}", subjects_filter=f"{prefix}>")
        return [subject.removeprefix(prefix) for subject in found["state"].get("subjects") or {}]

    async def delete(self, key: str) -> int:
        """Returns how many values there were: 0 or 1, or more for a key with a wildcard."""
        found = await self._nats.api(f"STREAM.PURGE.{self.stream}", filter=f"$KV.{self._name}.{key}")
        return int(found["purged"])
