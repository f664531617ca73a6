-- A worker of another program sends no heartbeat: remove it and put its job into `failed`, if nothing has changed since
-- the caller read it. Node's leader does the same in several steps: while there is one, this does nothing, because the
-- job would be in `failed` twice.
--
-- KEYS  worker:ID, worker:ping:NAME, workers, failed, stat:failed, py:totals, py:leases, Node's lock,
--       workers:heartbeat, then the worker's other keys
-- ARGV  ID, its ping, its record or "", the failure record or "", our name in the lock, its heartbeat or ""
-- Returns 1 if it was removed, else 0.
-- prelude.lua is put before this.
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
