-- Claim events of one partition for a consumer: first those whose lease or pause has ended, then new ones.
-- KEYS: 1 events (list)  2 state (hash)  3 counters (hash)  4 pending (zset)  5 holders (hash), all of one partition
-- ARGV: 1 consumer  2 epoch  3 index at which the consumer begins here  4 owner  5 ms of a lease  6 limit
--       7 token of this claim  8 token of the owner's first claim here whose answer was lost, or 0
-- Returns one of {'missing'}; {'stale', epoch} if the consumer is in this later epoch; {'trimmed', number of undone events, next,
-- first of next}; {'claimed', next or '', first of next, number of new events left, number of pending events, ms until
-- the first of these is due, 1 if the event must be handled alone, index, attempts, event, …}.
redis.call('PERSIST', KEYS[4]) -- changes nothing, but a full Redis then allows the next writes: see scripts.py
local first, following, trimmed = unpack(redis.call('HMGET', KEYS[2], 'first', 'next', 'trimmed'))
if not first then
    return {'missing'}
end
local epoch, counter = string.match(redis.call('HGET', KEYS[3], ARGV[1]) or '', '^(%d+) (%d+)$')
local first_visit = not epoch or tonumber(epoch) < tonumber(ARGV[2])
if first_visit then -- in this epoch: forget what was claimed before
    redis.call('DEL', KEYS[4], KEYS[5])
    counter = ARGV[3]
elseif tonumber(epoch) > tonumber(ARGV[2]) then
    return {'stale', tonumber(epoch)}
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
local lease_end, holder = string.format('%.0f', now + ARGV[5]), ' ' .. ARGV[7] .. ' ' .. ARGV[4]
local function take(index, attempts, event)
    local replied, taken = #reply, #leases
    reply[replied + 1], reply[replied + 2], reply[replied + 3] = index, attempts, event
    leases[taken + 1], leases[taken + 2] = lease_end, index
    holders[taken + 1], holders[taken + 2] = index, attempts .. holder
end

-- The owner lost an answer, so it does not know these leases: they are due now.
if ARGV[8] ~= '0' then
    local all = redis.call('HGETALL', KEYS[5])
    for number = 1, #all, 2 do
        local token, owner = string.match(all[number + 1], '^%d+ (%d+) (.*)$')
        if owner == ARGV[4] and tonumber(token) >= tonumber(ARGV[8]) then
            redis.call('ZADD', KEYS[4], 'XX', 0, all[number])
        end
    end
end
-- No lease or pause can end later than this. If one does, the clock was turned back: it is due now.
local latest = string.format('(%.0f', now + math.max(ARGV[5], 60000))
for _, index in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], latest, '+inf')) do
    redis.call('ZADD', KEYS[4], 0, index)
end

local alone = false
for _, index in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, limit)) do
    local attempts, owner = string.match(redis.call('HGET', KEYS[5], index) or '', '^(%d+) %d+ (.*)$')
    -- An owner that claims its own event again is alive, so the event has not killed it: do not count an attempt.
    attempts = (attempts or 0) + (owner == ARGV[4] and 0 or 1)
    -- Two owners have died while they held this event, so it may have killed them. Claim it alone: then another crash
    -- affects no other event.
    local isolated = attempts >= 3 and owner ~= ''
    if not isolated or #leases == 0 then
        take(tonumber(index), attempts, redis.call('LINDEX', KEYS[1], index) or '')
        alone = isolated
    end
    if isolated then
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
if #leases > 0 or first_visit then
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[2] .. ' ' .. counter)
end
local earliest = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')[2] or now
return {'claimed', following or '', first + length, length - counter, redis.call('ZCARD', KEYS[4]),
    math.max(0, earliest - now), alone and 1 or 0, unpack(reply)}
