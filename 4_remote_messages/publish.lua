-- Publish many messages with one command and one answer.
-- KEYS: none, because channels are not keys; in a cluster one channel, so that a node without its slot answers MOVED
-- ARGV[1]: JSON ["channel", "message", "channel", "message", …]   ARGV[2]: PUBLISH, or in a cluster SPUBLISH
-- Returns a list: for each message, how many subscribers received it.
local words = cjson.decode(ARGV[1])
local receivers = {}
for i = 1, #words, 2 do
    receivers[#receivers + 1] = redis.call(ARGV[2], words[i], words[i + 1])
end
return receivers
