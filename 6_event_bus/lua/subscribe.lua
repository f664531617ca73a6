-- Note a subscription and since when it counts, in one step: no event is between the two.
-- KEYS: 1 subscriptions (hash)   ARGV: 1 application  2 event  3 queue  4 class
local time = redis.call('TIME')
local since = time[1] * 1000 + math.floor(time[2] / 1000)
local subscription = {event = ARGV[2], queue = ARGV[3], class = ARGV[4], since = since}
return redis.call('HSET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], cjson.encode(subscription))
