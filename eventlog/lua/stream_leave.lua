-- Remove the names of ended processes from a group: XREADGROUP adds one for each process, and Redis keeps them forever.
-- A name that holds pending events stays. XREADGROUP adds a removed name again if its process is still running.
-- KEYS: 1 events (stream)   ARGV: 1 consumer (group)  2 a name to remove now, or ''  3 ms of idle time before removal
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local one = {}
    for number = 1, #fields, 2 do
        one[fields[number]] = fields[number + 1]
    end
    if one.pending == 0 and (one.name == ARGV[2] or one.idle > tonumber(ARGV[3])) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], one.name)
    end
end
