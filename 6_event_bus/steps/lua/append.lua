-- Append an event to the list of a minute.
-- KEYS  talk:partitions   ARGV  1 the event  2 the minute by the producer's clock, or "" to use Redis's clock
local minute = ARGV[2] ~= '' and ARGV[2] or math.floor(redis.call('TIME')[1] / 60)
redis.call('ZADD', KEYS[1], minute, minute)
return redis.call('RPUSH', KEYS[1] .. ':' .. minute, ARGV[1])
