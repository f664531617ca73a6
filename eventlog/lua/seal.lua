-- Seal a partition whose seal a failover has lost: the next partition is listed, and perhaps has events already.
-- KEYS: 1 events (list)  2 state (hash)   ARGV: 1 number of the next partition
-- Returns 1, or 0 if the partition is sealed or does not exist.
local first, following = unpack(redis.call('HMGET', KEYS[2], 'first', 'next'))
if not first or following then
    return 0
end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[2], 'next', ARGV[1], 'length', redis.call('LLEN', KEYS[1]), 'sealed', now)
return 1
