"""Given: jobs under leases, in Redis. Your file is worker.py.

exercise:queue    list    the waiting jobs, the oldest at the head
exercise:held     hash    token of a claim -> the job
exercise:leases   zset    token of a claim -> when its lease ends (ms, by Redis's clock)
"""

import secrets

from redis.asyncio import Redis

KEYS = ["exercise:queue", "exercise:held", "exercise:leases"]
NOW = "local time = redis.call('TIME')\nlocal now = time[1] * 1000 + math.floor(time[2] / 1000)\n"
CLAIM = """
local job = redis.call('LPOP', KEYS[1])
if job then
  redis.call('HSET', KEYS[2], ARGV[1], job)
  redis.call('ZADD', KEYS[3], now + ARGV[2], ARGV[1])
end
return job
"""
RENEW = "return redis.call('ZADD', KEYS[3], 'XX', 'CH', now + ARGV[2], ARGV[1])"
DONE = """
redis.call('ZREM', KEYS[3], ARGV[1])
return redis.call('HDEL', KEYS[2], ARGV[1])
"""
PUT_BACK = """
local ended = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now)
for _, token in ipairs(ended) do
  redis.call('LPUSH', KEYS[1], redis.call('HGET', KEYS[2], token))
  redis.call('HDEL', KEYS[2], token)
  redis.call('ZREM', KEYS[3], token)
end
return #ended
"""


class Leases:
    """Each method is one Lua script, so it happens as a whole or not at all."""

    def __init__(self, redis: Redis, lease_seconds: float) -> None:
        self._lease_ms = int(lease_seconds * 1000)
        scripts = (redis.register_script(NOW + script) for script in (CLAIM, RENEW, DONE, PUT_BACK))
        self._claim, self._renew, self._done, self._put_back = scripts

    async def claim(self) -> tuple[str, bytes] | None:
        """Take the oldest job under a new lease. Returns the token of the claim and the job; None if none waits."""
        token = secrets.token_hex(8)
        job = await self._claim(KEYS, [token, self._lease_ms])
        return (token, job) if job else None

    async def renew(self, token: str) -> bool:
        """The heartbeat: from now on the job is ours for another lease. False: it is ours no more."""
        return bool(await self._renew(KEYS, [token, self._lease_ms]))

    async def done(self, token: str) -> bool:
        """Acknowledge: the job is done and may be forgotten. False: it was ours no more."""
        return bool(await self._done(KEYS, [token, self._lease_ms]))

    async def put_back(self) -> int:
        """Put the jobs of all workers back into the queue whose leases have ended. Returns how many."""
        return int(await self._put_back(KEYS, ["", 0]))
