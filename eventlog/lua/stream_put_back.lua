-- Give up the lease of an event that shall be claimed again after a pause: as if it had been idle for the rest of a lease.
-- KEYS: 1 events (stream)  2 holders (hash)
-- ARGV: 1 owner  2 id  3 "attempts token"  4 the attempts to count from now on  5 ms of the pause  6 consumer (group)
--       7 ms of a lease   Returns 1, or 0 when the lease is somebody else's by now.
if redis.call('HGET', KEYS[2], ARGV[2]) ~= string.match(ARGV[3], '%d+$') .. ' ' .. ARGV[1] then
    return 0
end
local idle = math.max(0, ARGV[7] - ARGV[5])
redis.call('XCLAIM', KEYS[1], ARGV[6], '-', 0, ARGV[2], 'IDLE', idle, 'RETRYCOUNT', ARGV[4], 'JUSTID')
redis.call('HDEL', KEYS[2], ARGV[2])
return 1
