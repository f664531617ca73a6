-- Acknowledge (XACK) events, but only those whose lease this owner holds: XACK itself does not check that.
-- KEYS: 1 events (stream)  2 holders (hash)
-- ARGV: 1 owner  2 "id attempts token id attempts token …"  3 consumer (group)
-- Returns how many events are still held, then for each event 1, or 0 if another owner has the lease.
local ids, claims, reply, done = {}, {}, {0}, {}
for id, token in string.gmatch(ARGV[2], '(%S+) %d+ (%d+)') do
    ids[#ids + 1] = id
    claims[#claims + 1] = token .. ' ' .. ARGV[1]
end
for number, holder in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do
    local ours = holder == claims[number]
    reply[number + 1] = ours and 1 or 0
    if ours then
        done[#done + 1] = ids[number]
    end
end
if #done > 0 then
    redis.call('XACK', KEYS[1], ARGV[3], unpack(done))
    redis.call('HDEL', KEYS[2], unpack(done))
end
reply[1] = redis.call('HLEN', KEYS[2])
return reply
