-- Claim events for a group: first those whose lease or pause has ended, then new ones.
-- KEYS: 1 events (stream)  2 holders (hash)
-- ARGV: 1 consumer (group)  2 owner  3 ms of a lease  4 limit  5 token of this claim
--       6 token of the owner's first claim whose answer was lost, or 0
--       7 1 to look for ended leases, which reads all pending entries
-- Returns 1 if the event must be handled alone, then attempts, entry, …
redis.call('PERSIST', KEYS[2]) -- changes nothing, but a full Redis then allows the next writes: see scripts.py
local limit, alone = tonumber(ARGV[4]), false
local reply, holders = {}, {}
local function take(attempts, entry)
    reply[#reply + 1] = attempts
    reply[#reply + 1] = entry
    holders[#holders + 1] = entry[1]
    holders[#holders + 1] = ARGV[5] .. ' ' .. ARGV[2]
end

-- The owner lost an answer, so it does not know these leases: they are due now.
if ARGV[6] ~= '0' then
    for _, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000, ARGV[2])) do
        local id, _, _, attempts = unpack(pending)
        local since = string.match(redis.call('HGET', KEYS[2], id) or '', '^%d+')
        if since and tonumber(since) >= tonumber(ARGV[6]) then
            redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'IDLE', ARGV[3], 'RETRYCOUNT', attempts, 'JUSTID')
        end
    end
end

local due = ARGV[7] == '1' and redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], '-', '+', limit) or {}
table.sort(due, function(one, other) return one[3] > other[3] end)
for _, pending in ipairs(due) do
    local id, owner, _, attempts = unpack(pending)
    -- An owner that claims its own event again is alive, so the event has not killed it: do not count an attempt.
    attempts = attempts + (owner == ARGV[2] and 0 or 1)
    -- Two owners have died while they held this event, so it may have killed them. Claim it alone: then another crash
    -- affects no other event.
    local isolated = attempts >= 3 and owner ~= '-'
    if not isolated or #reply == 0 then
        local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'RETRYCOUNT', attempts)[1]
        if entry then
            take(attempts, entry)
            alone = isolated
        else -- it was trimmed
            redis.call('XACK', KEYS[1], ARGV[1], id)
        end
    end
    if isolated then
        break
    end
end
local room = limit - #reply / 2
if room > 0 and not alone then
    local found = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', room, 'STREAMS', KEYS[1], '>')
    for _, entry in ipairs(found and found[1][2] or {}) do
        take(1, entry)
    end
end
if #holders > 0 then
    redis.call('HSET', KEYS[2], unpack(holders))
end
return {alone and 1 or 0, unpack(reply)}
