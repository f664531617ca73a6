-- Resume a queue.
--
-- KEYS  py:paused:QUEUE   ARGV  "1": only if the pause is timed
-- Returns 1, or 0: it was not paused, or it stays paused.
-- prelude.lua is put before this.
if ARGV[1] == '1' and redis.call('PTTL', KEYS[1]) == -1 then return 0 end
return redis.call('DEL', KEYS[1])
