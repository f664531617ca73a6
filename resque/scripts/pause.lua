-- Pause a queue; a pause for a time does not shorten one without an end.
--
-- KEYS  py:paused:QUEUE   ARGV  why, for how long (ms; 0: until it is resumed)
-- Returns 1, or 0: a pause without an end was there.
-- Before this stands prelude.lua.
if ARGV[2] == '0' then
    redis.call('SET', KEYS[1], ARGV[1])
elseif redis.call('PTTL', KEYS[1]) == -1 then
    return 0
else
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
