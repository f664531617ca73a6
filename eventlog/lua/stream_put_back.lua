-- End the lease of an event, so that it can be claimed after a pause: sets its idle time to a lease minus the pause.
-- KEYS: 1 events (stream)  2 holders (hash)
-- ARGV: 1 owner  2 id  3 "attempts token"  4 attempts so far  5 ms of the pause  6 consumer (group)
--       7 ms of a lease  8 1 if it must be handled alone again   Returns 1, or 0 if another owner has the lease.
if redis.call('HGET', KEYS[2], ARGV[2]) ~= string.match(ARGV[3], '%d+$') .. ' ' .. ARGV[1] then
    return 0
end
local idle = math.max(0, ARGV[7] - ARGV[5])
local owner = ARGV[8] == '1' and '?' or '-'
redis.call('XCLAIM', KEYS[1], ARGV[6], owner, 0, ARGV[2], 'IDLE', idle, 'RETRYCOUNT', ARGV[4], 'JUSTID')
redis.call('HDEL', KEYS[2], ARGV[2])
return 1
