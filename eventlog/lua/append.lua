-- Append events to an open partition. If its time is over, seal it and return the number of the next partition.
-- KEYS: 1 events (list)  2 state (hash)  3 ids (hash)  4 counters (hash), all of one partition
-- ARGV: 1 number of the partition  2 ms for which it is open  3 how many events it holds at most
--       4 seconds for which ids are remembered  5 id  6 event  7 id  8 event …
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
local ids = {}
for number = 5, #ARGV, 2 do
    ids[#ids + 1] = ARGV[number]
end
if #ids == 0 then -- the log has all of them in earlier partitions
    return {'appended'}
end
local reply, fresh, places, bytes = {'appended'}, {}, {}, 0
local here = {} -- the ids of this call -> index: it may have one twice
for number, index in ipairs(redis.call('HMGET', KEYS[3], unpack(ids))) do
    local id = ids[number]
    index = index or here[id]
    if not index then
        index = length + #fresh
        here[id] = index
        fresh[#fresh + 1] = stamp .. ' ' .. ARGV[4 + 2 * number]
        bytes = bytes + #fresh[#fresh]
        places[#places + 1] = id
        places[#places + 1] = index
    end
    reply[#reply + 1] = tonumber(index)
end
if #fresh > 0 then
    redis.call('HSET', KEYS[3], unpack(places))
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
