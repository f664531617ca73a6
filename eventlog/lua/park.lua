-- Park an event and count it, in one step.
-- KEYS: 1 parked (hash)  2 their order (zset)  3 counts (hash)  [4 pending (zset)  5 holders (hash), for a retried event]
-- ARGV: 1 position  2 entry  3 ms now  4 "attempts token owner" of the claim
-- Returns 1, or 0 if another owner has the lease of the retried event.
redis.call('PERSIST', KEYS[1]) -- changes nothing, but a full Redis then allows the next writes: see scripts.py
if KEYS[5] then
    if redis.call('HGET', KEYS[5], ARGV[1]) ~= ARGV[4] then
        return 0
    end
    redis.call('ZREM', KEYS[4], ARGV[1])
    redis.call('HDEL', KEYS[5], ARGV[1])
end
-- Another event has its lease elsewhere. If the worker dies before the commit, the next worker parks the event again.
local is_new = redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) == 1
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
if is_new or KEYS[5] then
    redis.pcall('HINCRBY', KEYS[3], 'given_up', 1)
end
return 1
