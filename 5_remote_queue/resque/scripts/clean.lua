-- A worker of another program gives no sign of life: take it away and put its job into `failed`, if nothing has changed
-- since the caller looked.
--
-- KEYS  worker:ID, worker:ping:NAME, workers, failed, stat:failed, py:totals, py:leases, then what else belongs to the worker
-- ARGV  ID, its ping, its record or "", the failure record or ""
-- Returns 1 if it was taken away, else 0.
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] or (redis.call('GET', KEYS[1]) or '') ~= ARGV[3]
    or redis.call('ZSCORE', KEYS[7], ARGV[1]) or redis.call('SREM', KEYS[3], ARGV[1]) == 0 then
    return 0
end
if ARGV[4] ~= '' then
    redis.call('RPUSH', KEYS[4], ARGV[4])
    redis.call('INCR', KEYS[5])
    redis.call('HINCRBY', KEYS[6], 'failed', 1)
end
redis.call('DEL', KEYS[1], KEYS[2], unpack(KEYS, 8))
return 1
