-- Move the next job from the queue into a slot's record and set the slot's deadline, in one step.
-- KEYS  queue:QUEUE, worker:ID, py:leases, workers   ARGV  ID, the lease (ms), the record without its payload
-- Returns the record, or nil if the queue is empty.
local time = redis.call('TIME')
redis.call('ZADD', KEYS[3], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
redis.call('SADD', KEYS[4], ARGV[1])
local record = redis.call('GET', KEYS[2])
if record then return record end -- the answer to the last claim was lost: the slot gets the same job again
local job = redis.call('LPOP', KEYS[1])
if not job then return false end
record = ARGV[3] .. ',"payload":' .. job .. '}'
redis.call('SET', KEYS[2], record)
return record
