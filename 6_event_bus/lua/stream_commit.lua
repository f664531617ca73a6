-- XACK for these events, but only for those whose lease is ours still: XACK itself takes anybody's word.
-- KEYS: 1 events (stream)   ARGV: 1 owner  2 "id attempts id attempts …"  3 consumer (group)
-- Returns how many are pending still, then for each 1 or 0.
local reply = {0}
for id, attempts in string.gmatch(ARGV[2], '(%S+) (%d+)') do
    local found = redis.call('XPENDING', KEYS[1], ARGV[3], id, id, 1)[1]
    local ours = found and found[2] == ARGV[1] and found[4] == tonumber(attempts)
    reply[#reply + 1] = ours and redis.call('XACK', KEYS[1], ARGV[3], id) or 0
end
reply[1] = redis.call('XPENDING', KEYS[1], ARGV[3])[1]
return reply
