-- End the delay of a job: move it from `delayed:TS` to the end of its queue, or remove it.
--
-- KEYS  delayed:TS, timestamps:RAW, delayed_queue_schedule, queues, queue:QUEUE
-- ARGV  RAW, TS, the queue's name, or "" to remove the job
-- Returns 1, or 0: it was no longer there; or -1: the queue's key is not a list.
-- prelude.lua is put before this.
local delayed, timestamps, schedule, queues, queue = unpack(KEYS)
local raw, second, name = unpack(ARGV)
if not redis.call('LPOS', delayed, raw) then return 0 end
if name ~= '' then
    if type(redis.pcall('RPUSH', queue, raw)) ~= 'number' then return -1 end
    redis.call('SADD', queues, name)
end
redis.call('LREM', delayed, 1, raw)
if not redis.call('LPOS', delayed, raw) then redis.pcall('SREM', timestamps, 'delayed:' .. second) end
if redis.call('EXISTS', delayed) == 0 then redis.call('ZREM', schedule, second) end
return 1
