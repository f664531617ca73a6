-- A worker of another program gives no sign of life: take it away and put its job into `failed`, if nothing has changed
-- since the caller looked. Node's leader does the same, in several steps: while there is one, it is left to that, or the
-- job would be in `failed` twice.
--
-- KEYS  worker:ID, worker:ping:NAME, workers, failed, stat:failed, py:totals, py:leases, Node's lock,
--       workers:heartbeat, then what else belongs to the worker
-- ARGV  ID, its ping, its record or "", the failure record or "", our name in the lock, its heartbeat or ""
-- Returns 1 if it was taken away, else 0.
-- Before this stands prelude.lua.
local leader = redis.call('GET', KEYS[8])
if leader and leader ~= ARGV[5] or redis.call('ZSCORE', KEYS[7], ARGV[1])
    or (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] or (redis.call('GET', KEYS[1]) or '') ~= ARGV[3]
    or (redis.pcall('HGET', KEYS[9], ARGV[1]) or '') ~= ARGV[6]
    or redis.call('SREM', KEYS[3], ARGV[1]) == 0 then
    return 0
end
if ARGV[4] ~= '' then
    redis.call('RPUSH', KEYS[4], ARGV[4])
    redis.pcall('INCR', KEYS[5])
    redis.pcall('HINCRBY', KEYS[6], 'failed', 1)
end
redis.pcall('HDEL', KEYS[9], ARGV[1])
redis.call('DEL', KEYS[1], KEYS[2], unpack(KEYS, 10))
return 1
