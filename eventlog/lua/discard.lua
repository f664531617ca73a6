-- Delete parked events. A worker that is retrying one of them loses its lease.
-- KEYS: 1 pending (zset)  2 holders (hash)  3 parked (hash)  4 their order (zset)   ARGV: the positions
-- Returns how many were deleted.
redis.call('ZREM', KEYS[1], unpack(ARGV))
redis.call('HDEL', KEYS[2], unpack(ARGV))
redis.call('ZREM', KEYS[4], unpack(ARGV))
return redis.call('HDEL', KEYS[3], unpack(ARGV))
