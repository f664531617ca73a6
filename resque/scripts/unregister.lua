-- Unregister these workers and delete their keys. A job that a late call has put into a record returns to its queue.
--
-- KEYS  workers:heartbeat, py:leases, workers, then for each worker worker:ID, worker:ID:started, worker:ping:NAME,
--       stat:processed:ID, stat:failed:ID
-- ARGV  1: JSON [ID …]   2: the prefix of a queue's key
-- prelude.lua is put before this.
allow_when_full(KEYS[3])
for i, id in ipairs(cjson.decode(ARGV[1])) do
    local key = 3 + 5 * (i - 1)
    local record = redis.call('GET', KEYS[key + 1])
    local head, raw = split(record or '')
    if head and redis.call('SISMEMBER', KEYS[3], id) == 1 then
        redis.call('LPUSH', ARGV[2] .. head.queue, raw)
        redis.call('DEL', KEYS[key + 1])
        record = nil
    end
    -- If a job is left, another program removed the worker as dead: after the lease, reap.lua recovers the job.
    if not record then redis.call('ZREM', KEYS[2], id) end
    redis.call('SREM', KEYS[3], id)
    redis.call('HDEL', KEYS[1], id)
    redis.call('DEL', unpack(KEYS, key + 2, key + 5))
end
