-- End the lease of an event, so that it can be claimed after a pause. Only for the owner that holds the lease.
-- KEYS: 1 pending (zset)  2 holders (hash)
-- ARGV: 1 owner  2 index  3 "attempts token"  4 attempts so far  5 ms of the pause
--       6 consumer (not used)  7 ms of a lease (not used)  8 1 if it must be handled alone again
-- Returns 1, or 0 if another owner has the lease.
redis.call('PERSIST', KEYS[1]) -- changes nothing, but a full Redis then allows the next writes: see scripts.py
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[3] .. ' ' .. ARGV[1] then
    return 0
end
local time = redis.call('TIME')
local due = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[5]
redis.call('ZADD', KEYS[1], string.format('%.0f', due), ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[4] .. ' 0 ' .. (ARGV[8] == '1' and '?' or ''))
if tonumber(ARGV[5]) == 0 then
    redis.call('PUBLISH', 'eventlog:appended', 'look')
end
return 1
