-- The heartbeat: what is ours has just been seen alive.
-- KEYS: 1 events (stream)   ARGV: 1 owner  2 (not used)  3 "id attempts id attempts …"  4 consumer (group)
-- Returns how many were extended.
local extended = 0
for id, attempts in string.gmatch(ARGV[3], '(%S+) (%d+)') do
    local found = redis.call('XPENDING', KEYS[1], ARGV[4], id, id, 1)[1]
    if found and found[2] == ARGV[1] and found[4] == tonumber(attempts) then
        redis.call('XCLAIM', KEYS[1], ARGV[4], ARGV[1], 0, id, 'IDLE', 0, 'RETRYCOUNT', attempts, 'JUSTID')
        extended = extended + 1
    end
end
return extended
