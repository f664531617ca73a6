-- The heartbeat: renew leases of this owner, by Redis's clock. Does not change leases of other owners.
-- KEYS: 1 pending (zset)  2 holders (hash)
-- ARGV: 1 owner  2 ms of a lease  3 "index attempts token index attempts token …"  4 consumer (not used)
-- Returns how many were renewed.
redis.call('PERSIST', KEYS[1]) -- changes nothing, but a full Redis then allows the next writes: see scripts.py
local time = redis.call('TIME')
local till = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2])
local extended = 0
for index, claim in string.gmatch(ARGV[3], '(%S+) (%d+ %d+)') do
    if redis.call('HGET', KEYS[2], index) == claim .. ' ' .. ARGV[1] then
        redis.call('ZADD', KEYS[1], 'XX', till, index)
        extended = extended + 1
    end
end
return extended
