-- The handlers of these events have ended well. Only who holds the lease may say so.
-- KEYS: 1 pending (zset)  2 holders (hash)  [3 a hash that keeps the events themselves, for those once parked]
-- ARGV: 1 owner  2 "index attempts token index attempts token …"  3 consumer (not used)
-- Returns how many are pending still, then for each 1, or 0 when the lease is somebody else's by now.
local indexes, claims, reply, done = {}, {}, {0}, {}
for index, claim in string.gmatch(ARGV[2], '(%S+) (%d+ %d+)') do
    indexes[#indexes + 1] = index
    claims[#claims + 1] = claim .. ' ' .. ARGV[1]
end
for number, holder in ipairs(redis.call('HMGET', KEYS[2], unpack(indexes))) do
    local ours = holder == claims[number]
    reply[number + 1] = ours and 1 or 0
    if ours then
        done[#done + 1] = indexes[number]
    end
end
if #done > 0 then
    redis.call('ZREM', KEYS[1], unpack(done))
    redis.call('HDEL', KEYS[2], unpack(done))
    if KEYS[3] then
        redis.call('HDEL', KEYS[3], unpack(done))
    end
end
reply[1] = redis.call('ZCARD', KEYS[1])
return reply
