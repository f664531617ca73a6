-- Raise the epoch of a cursor: a failover has lost a replay, and partitions on other nodes have seen its epoch.
-- KEYS: 1 cursor (hash)   ARGV: 1 epoch
if tonumber(redis.call('HGET', KEYS[1], 'epoch') or ARGV[1]) < tonumber(ARGV[1]) then
    redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
end
