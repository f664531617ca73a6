-- Open the partition that the seal of the one before has named. Opening it again changes nothing.
-- KEYS: 1 state (hash)
-- ARGV: 1 how many events the log has before it  [2 ms when the seal was read  3 ms for which that is valid]
-- Returns 1, or 0 if the seal was read too long ago: the partition may have been opened, trimmed and deleted since.
if ARGV[2] then
    local time = redis.call('TIME')
    if time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[2] > tonumber(ARGV[3]) then
        return 0
    end
end
redis.call('HSETNX', KEYS[1], 'first', ARGV[1])
return 1
