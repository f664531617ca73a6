-- The newest parked events. A commit removes an event from the hash only, so its place in the order is removed here.
-- KEYS: 1 parked (hash)  2 their order (zset)  3 pending (zset)   ARGV: 1 limit
-- Returns {position, entry, 1 if it is to be retried, …}; may be incomplete if many places had to be removed.
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
