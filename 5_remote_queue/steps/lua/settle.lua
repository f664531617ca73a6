-- The job of this claim is done, or has failed: remove it from the slot's record.
-- KEYS  worker:ID, failed   ARGV  the record without its payload (it holds the token), the failure or ""
-- Returns 1, or 0: the lease had ended, and the job is no longer this claim's.
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then return 0 end
if ARGV[2] ~= '' then redis.call('RPUSH', KEYS[2], ARGV[2]) end
return redis.call('DEL', KEYS[1])
