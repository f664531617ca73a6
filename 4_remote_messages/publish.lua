-- Publish many messages with one command and one answer.
-- ARGV[1]: JSON ["channel", "message", "channel", "message", …]   (there are no KEYS, because channels are not keys)
-- ARGV[2]: PUBLISH, or in a cluster SPUBLISH
-- Returns a list: for each message, how many subscribers received it.
local words = cjson.decode(ARGV[1])
local receivers = {}
for i = 1, #words, 2 do
    receivers[#receivers + 1] = redis.call(ARGV[2], words[i], words[i + 1])
end
return receivers
