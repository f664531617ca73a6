-- The newest parked events. A commit removes an event but leaves its place in the order, which is removed here.
-- KEYS: 1 parked (hash)  2 their order (zset)  3 pending (zset)   ARGV: 1 how many at most
-- Returns {position, entry, 1 if it is to be handled again, …}; fewer than there are, if many places went.
local reply = {}
for _ = 1, 20 do
    local positions = redis.call('ZREVRANGE', KEYS[2], #reply / 3, ARGV[1] - 1)
    if #positions == 0 then
        break
    end
    for number, entry in ipairs(redis.call('HMGET', KEYS[1], unpack(positions))) do
        if entry then
            reply[#reply + 1] = positions[number]
            reply[#reply + 1] = entry
            reply[#reply + 1] = redis.call('ZSCORE', KEYS[3], positions[number]) and 1 or 0
        else
            redis.call('ZREM', KEYS[2], positions[number])
        end
    end
end
return reply
