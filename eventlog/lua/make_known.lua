-- List a new partition, unless a later one is listed: then this one may have been trimmed already.
-- KEYS: 1 partitions (zset)   ARGV: 1 its number
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
if not last or tonumber(ARGV[1]) > tonumber(last) then
    redis.call('ZADD', KEYS[1], ARGV[1], ARGV[1])
end
