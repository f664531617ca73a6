-- Claim events for a group: first those whose owner is dead or that were put back, then new ones.
-- KEYS: 1 events (stream)  2 holders (hash)
-- ARGV: 1 consumer (group)  2 owner  3 ms of a lease  4 how many at most  5 token of this claim
--       6 1 to look for what is due, which costs more the more is pending
-- Returns 1 if this one is to be handled alone, then attempts, entry, …
redis.call('PERSIST', KEYS[2]) -- changes nothing: see scripts.py, a full Redis
local limit, alone = tonumber(ARGV[4]), false
local reply, holders = {}, {}
local function take(attempts, entry)
    reply[#reply + 1] = attempts
    reply[#reply + 1] = entry
    holders[#holders + 1] = entry[1]
    holders[#holders + 1] = ARGV[5] .. ' ' .. ARGV[2]
end

local due = ARGV[6] == '1' and redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], '-', '+', limit) or {}
table.sort(due, function(one, other) return one[3] > other[3] end)
for _, pending in ipairs(due) do
    local id, owner, _, attempts = unpack(pending)
    -- What has outlived two owners may be what killed them. It goes alone, so that it takes no other along.
    local suspect = attempts >= 2 and owner ~= '-'
    if not suspect or #reply == 0 then
        local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'RETRYCOUNT', attempts + 1)[1]
        if entry then
            take(attempts + 1, entry)
            alone = suspect
        else -- it was trimmed
            redis.call('XACK', KEYS[1], ARGV[1], id)
        end
    end
    if suspect then
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
