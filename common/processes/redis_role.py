"""Checks which kind of server REDIS_URL names: the strategies can write only to a single primary."""

from common.settings import exit_with_usage_error


async def refuse_unsupported(url: str) -> None:
    """End the program with one line and exit status 2 if the URL names a node of a cluster, a replica or a sentinel.

    Does nothing if Redis cannot be reached or does not answer; the roles log that themselves.
    """
    from redis.exceptions import (
        RedisError,  # here, because a program without a REDIS_URL starts faster without redis-py
    )

    from asynckit.redis_client import redis_client

    try:
        async with redis_client(url) as redis:
            facts = await redis.info("server") | await redis.info("replication")
    except RedisError:
        return
    mode = facts.get("redis_mode") or facts.get("server_mode")
    if mode == "cluster":
        exit_with_usage_error("REDIS_URL: is a node of a cluster, which is not supported; name a single Redis")
    if mode == "sentinel":
        exit_with_usage_error("REDIS_URL: is a sentinel; name the primary that it watches")
    if facts.get("role") == "slave":
        exit_with_usage_error("REDIS_URL: is a replica, which takes no writes; name its primary")
