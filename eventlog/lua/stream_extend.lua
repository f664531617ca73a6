-- The heartbeat: renew leases of this owner, by setting the idle time of their entries to 0.
-- KEYS: 1 events (stream)  2 holders (hash)
-- ARGV: 1 owner  2 ms of a lease (not used)  3 "id attempts token id attempts token …"  4 consumer (group)
-- Returns how many were renewed.
local extended = 0
for id, attempts, token in string.gmatch(ARGV[3], '(%S+) (%d+) (%d+)') do
    if redis.call('HGET', KEYS[2], id) == token .. ' ' .. ARGV[1] then
        redis.call('XCLAIM', KEYS[1], ARGV[4], ARGV[1], 0, id, 'IDLE', 0, 'RETRYCOUNT', attempts, 'JUSTID')
        extended = extended + 1
    end
end
return extended
