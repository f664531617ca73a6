"""Checks that REDIS_URL names a server of the right kind: the strategies need a primary that runs scripts."""

from typing import TYPE_CHECKING

from common.settings import exit_with_usage_error

if TYPE_CHECKING:
    from redis.asyncio import Redis

NO_SCRIPTS = "this Redis refuses EVAL, but the strategies need Lua scripts (to allow them in an ACL: +@scripting)"


async def refuse_unsupported(url: str) -> None:
    """End the program with one line and exit status 2 if a plain URL names a node of a cluster, a replica or a
    sentinel, if `redis+cluster://` names another kind of server, or if the server refuses scripts.

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
            runs_scripts = await _runs_scripts(redis)
    except RedisError:
        return
    mode = str(facts.get("redis_mode") or facts.get("server_mode"))
    if not runs_scripts and mode != "sentinel":
        exit_with_usage_error(f"REDIS_URL: {NO_SCRIPTS}")
    if reason := _why_wrong_kind(mode, cluster is not None, facts.get("role") == "slave"):
        exit_with_usage_error(f"REDIS_URL: {reason}")


def _why_wrong_kind(mode: str, as_cluster: bool, is_replica: bool) -> str | None:
    """Why a server of this kind cannot be used with this kind of URL; None if it can."""
    if as_cluster:
        return None if mode == "cluster" else "is not a node of a cluster; write redis:// in place of redis+cluster://"
    if mode == "cluster":
        return "is a node of a cluster; write redis+cluster:// in place of redis://"
    if mode == "sentinel":
        return "is a sentinel; name the primary that it watches"
    return "is a replica, which takes no writes; name its primary" if is_replica else None


async def _runs_scripts(redis: "Redis") -> bool:
    """False if EVAL is disabled, or if this user may not call it. Raises RedisError."""
    from redis.exceptions import NoPermissionError, ResponseError

    try:
        await redis.eval("return 1", 0)
    except NoPermissionError:
        return False
    except ResponseError as error:
        if str(error).startswith("unknown command"):
            return False
        raise
    return True
