-- Append events to an open partition. If its time is over, seal it and return the number of the next partition.
-- KEYS: 1 events (list)  2 state (hash)  3 ids (hash)  4 counters (hash), all of one partition
-- ARGV: 1 number of the partition  2 ms for which it is open  3 how many events it holds at most
--       4 seconds for which ids are remembered  5 "id event\nid event\n…"
-- Returns {'appended', index, …}, where an id that exists keeps its index; {'sealed', next, first of the next, ms now};
-- {'missing'} if the partition does not exist.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local first, following, last = unpack(redis.call('HMGET', KEYS[2], 'first', 'next', 'last'))
if not first then
    return {'missing'}
end
local length = redis.call('LLEN', KEYS[1])
local over = length > 0 and (now - ARGV[1] >= tonumber(ARGV[2]) or length >= tonumber(ARGV[3]))
if not following and (over or ARGV[1] == '0') then -- every log begins with partition 0, which holds no event
    following = string.format('%.0f', math.max(ARGV[1] + 1, now, last or 0))
    redis.call('HSET', KEYS[2], 'next', following, 'length', length, 'sealed', string.format('%.0f', now))
    redis.call('EXPIRE', KEYS[3], ARGV[4])
end
if following then
    return {'sealed', following, first + redis.call('HGET', KEYS[2], 'length'), string.format('%.0f', now)}
end
local stamp = string.format('%.0f', math.max(now, last or ARGV[1]))
local reply, fresh, bytes = {'appended'}, {}, 0
for id, event in string.gmatch(ARGV[5], '(%S+) ([^\n]*)\n') do
    if redis.call('HSETNX', KEYS[3], id, length + #fresh) == 1 then
        fresh[#fresh + 1] = stamp .. ' ' .. event
        bytes = bytes + #fresh[#fresh]
        reply[#reply + 1] = length + #fresh - 1
    else
        reply[#reply + 1] = tonumber(redis.call('HGET', KEYS[3], id))
    end
end
if #fresh > 0 then
    redis.call('RPUSH', KEYS[1], unpack(fresh))
    redis.call('HSET', KEYS[2], 'last', stamp)
    redis.call('HINCRBY', KEYS[2], 'bytes', bytes)
    -- A consumer that has claimed every event so far may be waiting for a hint; the others look again without one. The
    -- first event of a partition always needs a hint: a consumer may have come from the partition before.
    local waiting = length == 0
    for _, counter in ipairs(redis.call('HVALS', KEYS[4])) do
        waiting = waiting or tonumber(string.match(counter, '%d+$')) == length
    end
    if waiting then
        redis.call('PUBLISH', 'eventlog:appended', 'look')
    end
end
return reply
