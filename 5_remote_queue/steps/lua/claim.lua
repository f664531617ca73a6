-- Move the next job from the queue into a slot's record, in one step.
-- KEYS  queue:QUEUE, worker:ID, py:leases   ARGV  ID, the record without its payload
-- Returns the record, or nil if the queue is empty. Error LOST: the slot's lease has ended.
if not redis.call('ZSCORE', KEYS[3], ARGV[1]) then return redis.error_reply('LOST') end
local record = redis.call('GET', KEYS[2])
if record then return record end -- the answer to the last claim was lost: the slot gets the same job again
local job = redis.call('LPOP', KEYS[1])
if not job then return false end
record = ARGV[2] .. ',"payload":' .. job .. '}'
redis.call('SET', KEYS[2], record)
return record
