-- Append an event to the list of a minute.
-- KEYS  talk:partitions   ARGV  the event, the minute by the producer's clock, or "" for Redis's clock
local minute = ARGV[2] ~= '' and ARGV[2] or math.floor(redis.call('TIME')[1] / 60)
redis.call('ZADD', KEYS[1], minute, minute)
return redis.call('RPUSH', KEYS[1] .. ':' .. minute, ARGV[1])
