-- Pause a queue. A timed pause does not replace a pause without a limit.
--
-- KEYS  py:paused:QUEUE   ARGV  the reason, for how long (ms; 0: until it is resumed)
-- Returns 1, or 0: the queue already has a pause without a limit.
-- prelude.lua is put before this.
if ARGV[2] == '0' then
    redis.call('SET', KEYS[1], ARGV[1])
elseif redis.call('PTTL', KEYS[1]) == -1 then
    return 0
else
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
