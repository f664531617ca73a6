-- Take names that nobody has any more out of a group: XREADGROUP adds one for each process, and Redis would keep them all.
-- KEYS: 1 events (stream)   ARGV: 1 consumer (group)  2 a name that is not needed from now on, or ''  3 ms after which no
-- other is either. None goes while something is pending for it; one that comes back is added again.
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local one = {}
    for number = 1, #fields, 2 do
        one[fields[number]] = fields[number + 1]
    end
    if one.pending == 0 and (one.name == ARGV[2] or one.idle > tonumber(ARGV[3])) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], one.name)
    end
end
