-- Release a job that was not finished: move it from `worker:ID` back to the head of its queue. No attempt is counted.
--
-- KEYS  worker:ID, workers, queue:QUEUE
-- ARGV  ID, token, RAW
-- Returns 1, or 0: it was no longer the caller's.
-- prelude.lua is put before this.
if not is_held(KEYS[1], ARGV[2], KEYS[2], ARGV[1]) then
    return 0
end
allow_when_full(KEYS[2])
redis.call('LPUSH', KEYS[3], ARGV[3])
redis.call('DEL', KEYS[1])
return 1
