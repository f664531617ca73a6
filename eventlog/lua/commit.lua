-- Mark events as done. Commits only events whose lease this owner holds.
-- KEYS: 1 pending (zset)  2 holders (hash)  [3 parked (hash), for parked events]
-- ARGV: 1 owner  2 "index attempts token index attempts token …"  3 consumer (not used)
-- Returns how many events are still pending, then for each event 1, or 0 if another owner has the lease.
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
