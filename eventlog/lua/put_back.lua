-- Give up the lease of an event that shall be claimed again after a pause. Only who holds the lease may do so.
-- KEYS: 1 pending (zset)  2 holders (hash)
-- ARGV: 1 owner  2 index  3 "attempts token"  4 the attempts to count from now on  5 ms of the pause
--       6 consumer (not used)  7 ms of a lease (not used)
-- Returns 1, or 0 when the lease is somebody else's by now.
redis.call('PERSIST', KEYS[1]) -- changes nothing: see scripts.py, a full Redis
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[3] .. ' ' .. ARGV[1] then
    return 0
end
local time = redis.call('TIME')
local due = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[5]
redis.call('ZADD', KEYS[1], string.format('%.0f', due), ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[4] .. ' 0 ')
if tonumber(ARGV[5]) == 0 then
    redis.call('PUBLISH', 'eventlog:appended', 'look')
end
return 1
