-- This job has failed for good: move it from `worker:ID` to `failed`.
--
-- KEYS  worker:ID, workers, failed, stat:processed, stat:processed:ID, stat:failed, stat:failed:ID,
--       py:attempts, py:crashes, py:totals, py:chart:N, py:unique:… (py:unique:none if its class is not unique)
-- ARGV  ID, token, the failure record, field under which it was counted, job's id, how long to keep a chart (s),
--       1 if the call is repeated
-- Returns 1, or 0: it was no longer the caller's.
-- prelude.lua is put before this.
if not is_held(KEYS[1], ARGV[2], KEYS[2], ARGV[1]) then
    if was_settled(ARGV[7], KEYS[2], ARGV[1]) then return 1 end
    redis.pcall('HINCRBY', KEYS[10], 'late', 1)
    return 0
end
allow_when_full(KEYS[2])
redis.call('RPUSH', KEYS[3], ARGV[3])
redis.call('DEL', KEYS[1])
for counter = 4, 7 do redis.pcall('INCR', KEYS[counter]) end
redis.pcall('HDEL', KEYS[8], ARGV[4])
redis.pcall('HDEL', KEYS[9], ARGV[4])
redis.pcall('HINCRBY', KEYS[10], 'failed', 1)
redis.pcall('HINCRBY', KEYS[11], 'failed', 1)
redis.call('EXPIRE', KEYS[11], ARGV[6])
if redis.call('GET', KEYS[12]) == ARGV[5] then redis.call('DEL', KEYS[12]) end
return 1
