-- Free the lock of a unique job that has failed with its worker. Another job may hold the lock already.
--
-- KEYS  py:unique:…
-- ARGV  the job's id
-- Returns 1 if the lock is free now, else 0.
-- Before this stands prelude.lua.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
