-- Resume a queue.
--
-- KEYS  py:paused:QUEUE   ARGV  1: only if the pause has an end
-- Returns 1, or 0: it was not paused, or goes on.
-- Before this stands prelude.lua.
if ARGV[1] == '1' and redis.call('PTTL', KEYS[1]) == -1 then return 0 end
return redis.call('DEL', KEYS[1])
