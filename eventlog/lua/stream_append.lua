-- Append events to a stream, unless it has their ids.
-- KEYS: 1 events (stream)  2 state (hash)  3, 4 ids (hashes), used in turns for one span of time each
-- ARGV: 1 seconds of such a span  2 "id event\nid event\n…"   Returns the position of each.
local span = math.floor(redis.call('TIME')[1] / ARGV[1])
local ids, before = KEYS[3 + span % 2], KEYS[4 - span % 2]
if redis.call('HGET', ids, '') ~= tostring(span) then
    redis.call('HSET', ids, '', span) -- before the DEL: a full Redis must refuse, and it allows every write after a DEL
    redis.call('DEL', ids)
    redis.call('HSET', ids, '', span)
    redis.call('EXPIRE', ids, 2 * ARGV[1])
end
local reply, total = {}, tonumber(redis.call('HGET', KEYS[2], 'total') or 0)
for id, event in string.gmatch(ARGV[2], '(%S+) ([^\n]*)\n') do
    local position = redis.call('HGET', ids, id) or redis.call('HGET', before, id)
    if not position then
        position = redis.call('XADD', KEYS[1], '*', 'n', total, 'e', event)
        total = total + 1
        redis.call('HSET', ids, id, position)
    end
    reply[#reply + 1] = position
end
redis.call('HSET', KEYS[2], 'total', total)
return reply
