-- This job has failed and will be retried: move it from `worker:ID` to the delayed jobs and count the attempt.
--
-- KEYS  worker:ID, workers, delayed_queue_schedule, delayed:TS, timestamps:RAW, py:attempts, py:totals, py:chart:N
-- ARGV  ID, token, RAW, TS, queue's name, how long to keep a chart (s), 1 if the call is repeated
-- Returns 1, or 0: it was no longer the caller's.
-- prelude.lua is put before this.
if not is_held(KEYS[1], ARGV[2], KEYS[2], ARGV[1]) then
    if was_settled(ARGV[7], KEYS[1], KEYS[2], ARGV[1]) then return 1 end
    redis.pcall('HINCRBY', KEYS[7], 'late', 1)
    return 0
end
allow_when_full(KEYS[2])
-- first: a second without jobs is harmless, but a job whose second is missing is never found
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[4])
redis.call('RPUSH', KEYS[4], ARGV[3])
redis.call('DEL', KEYS[1])
redis.pcall('SADD', KEYS[5], 'delayed:' .. ARGV[4])
redis.pcall('HINCRBY', KEYS[6], job_key(ARGV[5], ARGV[3]), 1)
redis.pcall('HINCRBY', KEYS[7], 'retried', 1)
redis.pcall('HINCRBY', KEYS[8], 'retried', 1)
redis.call('EXPIRE', KEYS[8], ARGV[6])
return 1
