-- Open a partition, which the seal of the one before has named; a second time does nothing.
-- KEYS: 1 state (hash)   ARGV: 1 how many events the log has before it  [2 ms when the seal said so  3 ms that this counts]
-- Returns 0 when that was too long ago: it may have been opened, filled, trimmed and forgotten since.
if ARGV[2] then
    local time = redis.call('TIME')
    if time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[2] > tonumber(ARGV[3]) then
        return 0
    end
end
redis.call('HSETNX', KEYS[1], 'first', ARGV[1])
return 1
