-- Move the oldest invalid job to `failed`, if it is still the one for which the caller has made a record.
--
-- KEYS  py:unreadable (queue, text, queue, text …), failed, stat:failed, py:totals   ARGV  queue, text, failure record
-- Returns 1 if it was, else 0.
-- prelude.lua is put before this.
local oldest = redis.call('LRANGE', KEYS[1], 0, 1)
if oldest[1] ~= ARGV[1] or oldest[2] ~= ARGV[2] then return 0 end
allow_when_full(KEYS[1])
redis.call('RPUSH', KEYS[2], ARGV[3])
redis.call('LPOP', KEYS[1])
redis.call('LPOP', KEYS[1])
redis.pcall('INCR', KEYS[3])
redis.pcall('HINCRBY', KEYS[4], 'failed', 1)
return 1
