-- Claim parked events that are to be retried.
-- KEYS: 1 pending (zset)  2 holders (hash)  3 parked (hash)   ARGV: 1 owner  2 ms of a lease  3 limit  4 token
-- Returns {1 if the event must be handled alone, position, attempts, parked entry, …}
redis.call('PERSIST', KEYS[1]) -- changes nothing, but a full Redis then allows the next writes: see scripts.py
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local latest = string.format('(%.0f', now + math.max(ARGV[2], 60000))
for _, position in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], latest, '+inf')) do -- the clock was turned back
    redis.call('ZADD', KEYS[1], 0, position)
end
local reply = {0}
for _, position in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])) do
    local entry = redis.call('HGET', KEYS[3], position)
    if entry then
        local attempts, owner = string.match(redis.call('HGET', KEYS[2], position) or '', '^(%d+) %d+ (.*)$')
        attempts = (attempts or 0) + (owner == ARGV[1] and 0 or 1) -- as in claim.lua
        -- An event that was handled alone when it was parked may have killed workers: each retry is alone as well.
        local isolated = string.find(entry, '^[^\n]*"alone":true') or attempts >= 3 and owner ~= ''
        if isolated and #reply > 1 then
            break
        end
        redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), position)
        redis.call('HSET', KEYS[2], position, attempts .. ' ' .. ARGV[4] .. ' ' .. ARGV[1])
        for _, value in ipairs({position, attempts, entry}) do
            reply[#reply + 1] = value
        end
        if isolated then
            reply[1] = 1
            break
        end
    else
        redis.call('ZREM', KEYS[1], position)
        redis.call('HDEL', KEYS[2], position)
    end
end
return reply
