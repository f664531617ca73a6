-- Find the first event of a partition that was appended at this time or later. Bisection: the times never decrease.
-- KEYS: 1 events (list)   ARGV: 1 ms since 1970
local low, high = 0, redis.call('LLEN', KEYS[1])
while low < high do
    local middle = math.floor((low + high) / 2)
    local stamp = string.match(redis.call('LINDEX', KEYS[1], middle), '^%d+') or 0
    if tonumber(stamp) < tonumber(ARGV[1]) then
        low = middle + 1
    else
        high = middle
    end
end
return low
