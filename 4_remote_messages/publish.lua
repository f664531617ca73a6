-- Publish many messages in one go: one command to send and one answer to read, however many there are.
-- ARGV[1]: JSON ["channel", "message", "channel", "message", …]   (a channel is no key, so there are no KEYS)
-- Returns for each message how many subscribers received it.
local words = cjson.decode(ARGV[1])
local receivers = {}
for i = 1, #words, 2 do
    receivers[#receivers + 1] = redis.call('PUBLISH', words[i], words[i + 1])
end
return receivers
