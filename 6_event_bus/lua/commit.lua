-- The handlers of these events have ended well. Only who holds the lease may say so.
-- KEYS: 1 pending (zset)  2 holders (hash)  [3 a hash that keeps the events themselves, for those once parked]
-- ARGV: 1 owner  2 "index attempts index attempts …"
-- Returns how many are pending still, then for each 1, or 0 when the lease is somebody else's by now.
local reply = {0}
for index, attempts in string.gmatch(ARGV[2], '(%S+) (%d+)') do
    local ours = redis.call('HGET', KEYS[2], index) == attempts .. ' ' .. ARGV[1]
    if ours then
        redis.call('ZREM', KEYS[1], index)
        redis.call('HDEL', KEYS[2], index)
        if KEYS[3] then
            redis.call('HDEL', KEYS[3], index)
        end
    end
    reply[#reply + 1] = ours and 1 or 0
end
reply[1] = redis.call('ZCARD', KEYS[1])
return reply
