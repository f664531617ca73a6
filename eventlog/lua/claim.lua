-- Claim events of one partition for a consumer: first those whose lease or pause has ended, then new ones.
-- KEYS: 1 events (list)  2 state (hash)  3 counters (hash)  4 pending (zset)  5 holders (hash), all of one partition
-- ARGV: 1 consumer  2 epoch  3 index at which it begins here  4 owner  5 ms of a lease  6 how many at most
--       7 token of this claim  8 token of his first claim here whose answer was lost, or 0
-- Returns {'missing'}; {'stale'} when the consumer is in a later epoch; {'trimmed', how many it had not done, next, its
-- first}; {'claimed', next or '', next's first, new ones left, pending, ms until one of them is due, 1 if this one is to
-- be handled alone, index, attempts, event, …}.
redis.call('PERSIST', KEYS[4]) -- changes nothing: see scripts.py, a full Redis
local first, following, trimmed = unpack(redis.call('HMGET', KEYS[2], 'first', 'next', 'trimmed'))
if not first then
    return {'missing'}
end
local epoch, counter = string.match(redis.call('HGET', KEYS[3], ARGV[1]) or '', '^(%d+) (%d+)$')
local behind = not epoch or tonumber(epoch) < tonumber(ARGV[2])
if behind then -- the first visit in this epoch
    redis.call('DEL', KEYS[4], KEYS[5])
    counter = ARGV[3]
elseif tonumber(epoch) > tonumber(ARGV[2]) then
    return {'stale'}
end
if trimmed then
    local length = tonumber(redis.call('HGET', KEYS[2], 'length'))
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[2] .. ' ' .. length)
    return {'trimmed', length - counter, following, first + length}
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local length, limit = redis.call('LLEN', KEYS[1]), tonumber(ARGV[6])
counter = math.min(counter, length)
local reply, leases, holders = {}, {}, {}
local function take(index, attempts, event)
    for _, value in ipairs({index, attempts, event}) do
        reply[#reply + 1] = value
    end
    leases[#leases + 1] = string.format('%.0f', now + ARGV[5])
    leases[#leases + 1] = index
    holders[#holders + 1] = index
    holders[#holders + 1] = attempts .. ' ' .. ARGV[7] .. ' ' .. ARGV[4]
end

-- Due is also what the owner was given in an answer that was lost; and what ends later than any lease or pause can,
-- for then the clock has been turned back.
if ARGV[8] ~= '0' then
    local all = redis.call('HGETALL', KEYS[5])
    for number = 1, #all, 2 do
        local token, owner = string.match(all[number + 1], '^%d+ (%d+) (.*)$')
        if owner == ARGV[4] and tonumber(token) >= tonumber(ARGV[8]) then
            redis.call('ZADD', KEYS[4], 'XX', 0, all[number])
        end
    end
end
local latest = string.format('(%.0f', now + math.max(ARGV[5], 60000))
for _, index in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], latest, '+inf')) do
    redis.call('ZADD', KEYS[4], 0, index)
end

local alone = false
for _, index in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, limit)) do
    local attempts, owner = string.match(redis.call('HGET', KEYS[5], index) or '', '^(%d+) %d+ (.*)$')
    -- Who claims again what he holds is alive, so it has not killed him: that is no further attempt.
    attempts = (attempts or 0) + (owner == ARGV[4] and 0 or 1)
    -- What has outlived two owners may be what killed them. It goes alone, so that it takes no other along.
    local suspect = attempts >= 3 and owner ~= ''
    if not suspect or #leases == 0 then
        take(tonumber(index), attempts, redis.call('LINDEX', KEYS[1], index) or '')
        alone = suspect
    end
    if suspect then
        break
    end
end
local room = limit - #leases / 2
if room > 0 and counter < length and not alone then
    for _, event in ipairs(redis.call('LRANGE', KEYS[1], counter, counter + room - 1)) do
        take(counter, 1, event)
        counter = counter + 1
    end
end
if #leases > 0 then
    redis.call('ZADD', KEYS[4], unpack(leases))
    redis.call('HSET', KEYS[5], unpack(holders))
end
if #leases > 0 or behind then
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[2] .. ' ' .. counter)
end
local earliest = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')[2] or now
return {'claimed', following or '', first + length, length - counter, redis.call('ZCARD', KEYS[4]),
    math.max(0, earliest - now), alone and 1 or 0, unpack(reply)}
