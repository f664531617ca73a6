-- Retry parked events, with attempts counted from 0. An event stays parked until its handler succeeds.
-- KEYS: 1 pending (zset)  2 holders (hash)  3 parked (hash)   ARGV: the positions
-- Returns how many will be retried.
local found = 0
for _, position in ipairs(ARGV) do
    if redis.call('HEXISTS', KEYS[3], position) == 1 and not redis.call('ZSCORE', KEYS[1], position) then
        redis.call('HDEL', KEYS[2], position)
        redis.call('ZADD', KEYS[1], 0, position)
        found = found + 1
    end
end
redis.call('PUBLISH', 'eventlog:appended', 'rewound')
return found
