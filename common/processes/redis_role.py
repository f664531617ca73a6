"""Checks that REDIS_URL names the kind of server that it says: the strategies write only to primaries."""

from common.settings import exit_with_usage_error


async def refuse_unsupported(url: str) -> None:
    """End the program with one line and exit status 2 if a plain URL names a node of a cluster, a replica, a sentinel,
    or if `redis+cluster://` names another kind of server.

    Does nothing if Redis cannot be reached or does not answer; the roles log that themselves.
    """
    from redis.exceptions import (
        RedisError,  # here, because a program without a REDIS_URL starts faster without redis-py
    )

    from asynckit.cluster import read_cluster_url
    from asynckit.redis_client import redis_client

    cluster = read_cluster_url(url)
    try:
        async with redis_client(cluster.node if cluster else url) as redis:
            facts = await redis.info("server") | await redis.info("replication")
    except RedisError:
        return
    mode = facts.get("redis_mode") or facts.get("server_mode")
    if cluster:
        if mode != "cluster":
            exit_with_usage_error("REDIS_URL: is not a node of a cluster; write redis:// in place of redis+cluster://")
        return
    if mode == "cluster":
        exit_with_usage_error("REDIS_URL: is a node of a cluster; write redis+cluster:// in place of redis://")
    if mode == "sentinel":
        exit_with_usage_error("REDIS_URL: is a sentinel; name the primary that it watches")
    if facts.get("role") == "slave":
        exit_with_usage_error("REDIS_URL: is a replica, which takes no writes; name its primary")
