-- This job has failed and will be retried: move it from `worker:ID` to the delayed jobs and count the attempt.
--
-- The pause is measured by Redis's clock, which promotes the job, and not by the worker's.
--
-- KEYS  worker:ID, workers, delayed_queue_schedule, timestamps:RAW, py:attempts, py:totals, py:chart:N, py:counted;
--       delayed:TS is derived from these
-- ARGV  ID, token, RAW, the pause (ms), queue's name, how long to keep a chart (s), 1 if the call is repeated,
--       namespace
-- Returns 1, or 0: it was no longer the caller's.
-- prelude.lua is put before this.
if not is_held(KEYS[1], ARGV[2], KEYS[2], ARGV[1]) then
    if was_settled(ARGV[7], KEYS[2], ARGV[1]) then return 1 end
    redis.pcall('HINCRBY', KEYS[6], 'late', 1)
    return 0
end
allow_when_full(KEYS[2])
local second = string.format('%.0f', math.ceil((now_ms() + ARGV[4]) / 1000))
local key = job_key(ARGV[5], ARGV[3])
-- first: a second without jobs is harmless, but a job whose second is missing is never found
redis.call('ZADD', KEYS[3], second, second)
redis.call('RPUSH', ARGV[8] .. ':delayed:' .. second, ARGV[3])
redis.call('DEL', KEYS[1])
redis.pcall('SADD', KEYS[4], 'delayed:' .. second)
redis.pcall('HINCRBY', KEYS[5], key, 1)
redis.pcall('HSET', KEYS[8], key, second .. ' ' .. ARGV[5])
redis.pcall('HINCRBY', KEYS[6], 'retried', 1)
redis.pcall('HINCRBY', KEYS[7], 'retried', 1)
redis.call('EXPIRE', KEYS[7], ARGV[6])
return 1
